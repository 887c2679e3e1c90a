"""Restores Redis: loads each shard's RDB into a server of its own and measures all its keys.

The servers are not a cluster, so slots do not matter. They start as replicas without a master, because a master drops
expired keys while it loads. Functions are loaded with the data and never called. MIGRATE and modules, which could reach
other servers, are disabled. The data is read by the replication protocol and measured like the backup's RDB.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import redis

from archive.backup.manifest import Manifest, Measure
from archive.backup.reader import SetReader
from archive.streams.spool import Spool
from components.access import Access, Endpoint
from components.base import Restore, Scratch, Step
from components.redis.client import KEY, PORT, SECRET, STATEFULSET, connect
from components.redis.fingerprint import has_fields_apart, measure_rdb
from components.redis.keys.rdb import UnknownFormat
from components.redis.keys.replication import Replica
from config.models import Settings
from errors import PermanentError, TemporaryError

FORM, FILE = "RDB", "dump.rdb"
SETTINGS = """
bind 0.0.0.0
port {port}
dir /scratch
dbfilename {file}
requirepass {password}
appendonly no
save ""
replicaof 127.0.0.1 1
replica-serve-stale-data yes
repl-diskless-sync yes
repl-diskless-sync-delay 0
enable-debug-command yes
enable-module-command no
rename-command MIGRATE ""
"""


def scratch(_: Settings, manifest: Manifest, password: str) -> tuple[Scratch, ...]:
    """A server for each shard."""
    settings = SETTINGS.format(port=PORT, file=FILE, password=password)
    check = Step("check", ("redis-check-rdb", f"/scratch/{FILE}"), "L2")
    return tuple(
        Scratch(
            f"shard-{number}", STATEFULSET, STATEFULSET, ("redis-server", "/config/redis.conf"), PORT,
            files={"redis.conf": settings}, secrets={SECRET: {KEY: password}}, placed=(name,), steps=(check,),
        )
        for number, name in enumerate(_shards(manifest))
    )  # fmt: skip


def place(reader: SetReader, name: str, directory: Path) -> None:
    """Write a shard's RDB to the directory of its server.

    Raises:
        Damaged: it differs from what was stored.
    """
    number = int(name.rpartition("-")[2])
    reader.save(_shards(reader.manifest)[number], directory / FILE)


def ask(access: Access, endpoint: Endpoint) -> str:
    """The server's version, once it has loaded its data.

    Raises:
        TemporaryError: it is loading. While it loads keys it answers LOADING. While it loads a function library it may
            not answer at all: the library's code runs without a time limit (`rdbFunctionLoad` in src/rdb.c; FUNCTION
            LOAD has a limit).
        redis.RedisError: it does not answer yet.
    """
    with connect(access, endpoint) as client:
        try:
            info = client.info()  # refused with LOADING until then
        except redis.TimeoutError as exc:
            raise TemporaryError(
                f"{endpoint.member} accepts a connection and answers nothing: the code of a function library may run "
                "for ever while it is loaded. Look at FUNCTION LIST WITHCODE of the live cluster"
            ) from exc
    if int(info.get("loading", 0)):
        raise TemporaryError(f"{endpoint.member} is loading")
    name = str(info.get("server_name") or "redis")
    return f"{name} {info.get(f'{name}_version') or info['redis_version']}"


def load(access: Access, at: Mapping[str, Endpoint], reader: SetReader) -> None:
    """Make the servers masters, because only a master sends its data, and turn off expiry first."""
    try:
        for endpoint in at.values():
            with connect(access, endpoint) as client:
                client.execute_command("DEBUG SET-ACTIVE-EXPIRE 0")
                client.execute_command("REPLICAOF NO ONE")
    except redis.ResponseError as exc:
        raise PermanentError("Redis refused a command", said=str(exc)) from exc
    except redis.RedisError as exc:
        raise TemporaryError(f"Redis: {exc}") from exc


def measure(
    access: Access, at: Mapping[str, Endpoint], reader: SetReader
) -> Mapping[str, list[Measure]]:
    """Measure the data of all servers.

    Raises:
        TemporaryError: a server ended the transfer.
        PermanentError: a server returned unreadable data.
    """
    measures: list[Measure] = []
    apart = has_fields_apart(reader.manifest.fingerprint)
    for name, endpoint in at.items():
        replica = Replica(access, endpoint, access.settings.backup.stall_seconds)
        with Spool(replica, access.settings.backup.spool) as spool:
            for _ in spool:  # read it to its end
                pass
            try:
                with spool.reader() as file:
                    measures += measure_rdb(file, unit_of(reader, name), fields_apart=apart)
            except (UnknownFormat, EOFError) as exc:
                raise PermanentError(f"{endpoint.member} returned unreadable data: {exc}") from exc
    return {"": measures}


def unit_of(reader: SetReader, scratch: str) -> str:
    """The shard that a scratch engine serves."""
    return reader.unit(_shards(reader.manifest)[int(scratch.rpartition("-")[2])])


RESTORE = Restore(
    scratch, place, ask, load, measure,
    version=("redis-server", "--version"), lacking=r"no matching module type",
)  # fmt: skip


def _shards(manifest: Manifest) -> list[str]:
    """Names of the RDBs, `shard-2` before `shard-10`. Older backups name them by slots."""
    names = [a.name.removesuffix(".zst.age") for a in manifest.artefacts if a.format == FORM]
    return sorted(names, key=lambda name: (len(name), name))
