"""Brings Redis back: each shard's RDB in a server of its own, which is then asked for all that it holds.

The servers are not a cluster, so slots do not matter. They start as replicas without a master, because a master drops
keys whose time is over while it loads. Functions are loaded with the data, and never called; commands that could reach
others (MIGRATE, modules) is off. What they hold is taken as a replica would take it, and counted like the backup's own
RDB.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import redis

from archive.manifest import Manifest, Measure
from archive.reader import SetReader
from archive.spool import Spool
from components.access import Access, Endpoint
from components.base import Restore, Scratch, Step
from components.redis.client import KEY, PORT, SECRET, STATEFULSET, connect
from components.redis.fingerprint import has_fields_apart, measure_rdb
from components.redis.rdb import UnknownFormat
from components.redis.replication import Replica
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
    """Lay a shard's RDB where its server looks for it.

    Raises:
        Damaged: it is not what was stored.
    """
    number = int(name.rpartition("-")[2])
    reader.save(_shards(reader.manifest)[number], directory / FILE)


def ask(access: Access, endpoint: Endpoint) -> str:
    """Version of a server that has loaded its data.

    Raises:
        TemporaryError: it is loading. It says so while it loads keys; the code of a function library runs while that is
            loaded, with no limit of time (`rdbFunctionLoad` in src/rdb.c; FUNCTION LOAD has one).
        redis.RedisError: it does not answer yet.
    """
    with connect(access, endpoint) as client:
        try:
            found = client.info()  # refused with LOADING until then
        except redis.TimeoutError as exc:
            raise TemporaryError(
                f"{endpoint.member} accepts a connection and answers nothing: the code of a function library may run "
                "for ever while it is loaded. Look at FUNCTION LIST WITHCODE of the live cluster"
            ) from exc
    if int(found.get("loading", 0)):
        raise TemporaryError(f"{endpoint.member} is loading")
    name = str(found.get("server_name") or "redis")
    return f"{name} {found.get(f'{name}_version') or found['redis_version']}"


def load(access: Access, at: Mapping[str, Endpoint], reader: SetReader) -> None:
    """Make the servers masters that forget nothing: only a master gives its data away."""
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
    """What all servers together hold.

    Raises:
        TemporaryError: a server broke off.
        PermanentError: it gives what this project cannot read.
    """
    found: list[Measure] = []
    apart = has_fields_apart(reader.manifest.fingerprint)
    for name, endpoint in at.items():
        replica = Replica(access, endpoint, access.settings.backup.stall_seconds)
        with Spool(replica, access.settings.backup.spool) as spool:
            for _ in spool:  # to its end, or to what it died of
                pass
            try:
                with spool.reader() as file:
                    found += measure_rdb(file, unit_of(reader, name), fields_apart=apart)
            except (UnknownFormat, EOFError) as exc:
                raise PermanentError(f"{endpoint.member} returned unreadable data: {exc}") from exc
    return {"": found}


def unit_of(reader: SetReader, scratch: str) -> str:
    """Shard that a scratch engine serves, by its name."""
    return reader.unit(_shards(reader.manifest)[int(scratch.rpartition("-")[2])])


RESTORE = Restore(
    scratch, place, ask, load, measure,
    version=("redis-server", "--version"), lacking=r"no matching module type",
)  # fmt: skip


def _shards(manifest: Manifest) -> list[str]:
    """Names of the RDBs, `shard-2` before `shard-10`; older backups name them by their slots."""
    names = [a.name.removesuffix(".zst.age") for a in manifest.artefacts if a.format == FORM]
    return sorted(names, key=lambda name: (len(name), name))
