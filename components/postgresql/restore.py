"""Brings PostgreSQL back: from the base backup up to the set's own moment, and from the dumps into an empty server.

A proof does both, in an engine each: they are two ways on which the data may be lost. The base backup is checked by
pg_verifybackup first; an incremental one is put together with those that it rests on (pg_combinebackup). Recovery stops
at the LSN at which the fingerprint was taken, where there is WAL beyond it: at the end of the WAL PostgreSQL would
refuse a target that it cannot reach. https://www.postgresql.org/docs/18/continuous-archiving.html
"""

from __future__ import annotations

import re
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg

from archive.manifest import Manifest, Measure
from archive.reader import SetReader, opened
from cluster.command import Command
from components.access import Access, Endpoint
from components.base import Restore, Scratch, Step
from components.postgresql.client import (
    PORT,
    STATEFULSET,
    SUPERUSER,
    explained,
    program,
    where,
)
from components.postgresql.fingerprint import (
    SESSION,
    items_of,
    measure_database,
    measure_roles,
)
from config.models import Settings
from errors import PermanentError

FILES, DUMPS = "files", "dumps"
BASE, GLOBALS, DUMP = "base.tar", "globals.sql", "pg_dump custom"
DATA, PARTS = "/scratch/data", "parts"
# What the source's files say must not count: an archive, a primary, memory of another machine.
COMMAND = (
    "postgres", "-D", DATA, "-c", "config_file=/config/postgresql.conf", "-c", "hba_file=/config/pg_hba.conf",
    "-c", "ident_file=/config/pg_ident.conf", "-c", "archive_mode=off", "-c", "hot_standby=off",
    "-c", "primary_conninfo=", "-c", "primary_slot_name=",
)  # fmt: skip
SETTINGS = f"""
listen_addresses = '0.0.0.0'
port = {PORT}
unix_socket_directories = ''
max_connections = 100
restore_command = '/bin/false'
wal_level = minimal
max_wal_senders = 0
# the pod that loses its node loses its volume too
fsync = off
full_page_writes = off
include_if_exists = '/scratch/recovery.conf'
"""
# The roles' own passwords are not known here. Who gets in at all is the network policy's business.
RULES = "host all all all trust\n"
RECOVER = """
set -eu
cd /scratch/data
rm -f standby.signal
touch recovery.signal
if pg_waldump -q -p pg_wal -t {timeline} -s '{lsn}' -n 1 2> /dev/null; then
  printf "%s\\n" "recovery_target_lsn = '{lsn}'" "recovery_target_inclusive = off" \
    "recovery_target_action = promote" > /scratch/recovery.conf
fi
"""
# initdb asks for the name of its user, and the image's has none: its own start gives it one by the same library
# (libpostgresql.sh in github.com/bitnami/containers).
INITDB = f"""
set -eu
user=$(id -u) wrapper=${{NSS_WRAPPER_LIB:-/opt/bitnami/common/lib/libnss_wrapper.so}}
if ! getent passwd "$user" > /dev/null && [ -e "$wrapper" ]; then
  echo "{SUPERUSER}:x:$user:$(id -g):PostgreSQL:/tmp:/bin/false" > /tmp/passwd
  echo "{SUPERUSER}:x:$(id -g):" > /tmp/group
  export LD_PRELOAD="$wrapper" NSS_WRAPPER_PASSWD=/tmp/passwd NSS_WRAPPER_GROUP=/tmp/group
fi
exec initdb -D {DATA} -U {SUPERUSER} -E UTF8 --locale=C --no-sync
"""
LOAD_SECONDS = 86400.0  # of one database
# An image without an extension that the source has says so, of a dump and of files.
LACKING = r'extension "[^"]+" is not available|could not access file "\$libdir/[^"]+"'
# Which object of a dump it was: kind, schema, name. What it holds is in the lines behind.
ENTRY = re.compile(r"from TOC entry \d+; \d+ \d+ (.+)")


def scratch(_: Settings, manifest: Manifest, __: str) -> tuple[Scratch, ...]:
    """A server on the files, and an empty one for the dumps."""
    files = {"postgresql.conf": SETTINGS, "pg_hba.conf": RULES, "pg_ident.conf": ""}
    dumps = Scratch(
        DUMPS, STATEFULSET, "postgresql", COMMAND, PORT, files=files,
        steps=(Step("initdb", ("sh", "-c", INITDB), "L1"),),
    )  # fmt: skip
    if not _lsn(manifest):  # tablespaces: there is no base backup
        return (dumps,)
    steps = [Step("verify", ("pg_verifybackup", "-n", DATA), "L2")]
    if manifest.needs:
        parts = [f"/scratch/{PARTS}/{number}" for number in range(len(manifest.needs) + 1)]
        steps = [
            *(Step(f"verify-{n}", ("pg_verifybackup", "-n", part), "L2") for n, part in enumerate(parts)),
            Step("combine", ("pg_combinebackup", "--no-sync", "-o", DATA, *parts), "L2"),
        ]  # fmt: skip
    recover = RECOVER.format(timeline=int(manifest.topology["timeline"]), lsn=_lsn(manifest))
    steps.append(Step("recover", ("sh", "-c", recover), "L2"))
    restored = Scratch(
        FILES, STATEFULSET, "postgresql", COMMAND, PORT, files=files, placed=(BASE,),
        steps=tuple(steps),
    )  # fmt: skip
    return restored, dumps


def place(reader: SetReader, name: str, directory: Path) -> None:
    """Unpack the base backup, and those that it rests on.

    Raises:
        Damaged: an artefact is not what was stored.
        PermanentError: a tar names a file outside of its directory.
    """
    if name != FILES:
        return
    for number, manifest in enumerate(reader.chain):
        place = directory / PARTS / str(number) if reader.manifest.needs else directory / "data"
        place.mkdir(mode=0o700, parents=True)
        with (
            opened(reader.stream(BASE, manifest)) as file,
            tarfile.open(fileobj=file, mode="r|") as archive,
        ):
            archive.extractall(place, filter="data")
        for path in (place, *(p for p in place.rglob("*") if p.is_dir())):
            path.chmod(0o700)  # the server insists


def ask(_: Access, endpoint: Endpoint) -> str:
    """Version of a server that has ended its recovery."""
    with _connect(endpoint, SUPERUSER) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    return f"PostgreSQL {row[0]}" if row else ""


def load(access: Access, at: Mapping[str, Endpoint], reader: SetReader) -> None:
    """Give the empty server the roles and all dumps.

    Raises:
        Damaged: a dump is not what was stored.
        PermanentError: PostgreSQL does not take it; with its words.
        TemporaryError: a server is away.
    """
    server, spool = where(at[DUMPS], "template1"), access.settings.backup.spool
    psql, pg_restore = (program(access, name, "") for name in ("psql", "pg_restore"))
    lines = reader.read(GLOBALS).decode().splitlines(keepends=True)
    roles = "".join(line for line in lines if not of_superuser(line))
    run(psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", server, stdin=roles)
    spool.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=spool) as directory:
        for name in reader.names(DUMP):
            # a file, not a pipe: pg_restore fills tables in parallel from nothing else
            dump = reader.save(name, Path(directory) / "database.dump")
            words = ("--create", "--clean", "--if-exists", "--exit-on-error", "--jobs=2")
            run(pg_restore, *words, "--dbname", server, str(dump))
            dump.unlink()


def measure(
    _: Access, at: Mapping[str, Endpoint], reader: SetReader
) -> Mapping[str, list[Measure]]:
    """What either server holds, of the databases that the set has.

    Raises:
        PermanentError: a server cannot read what it holds.
        TemporaryError: it went away.
    """
    units = dict.fromkeys(m.unit for m in reader.manifest.fingerprint)
    names = [unit.partition(" ")[2] for unit in units if unit.startswith("database ")]
    known = {name: items_of(reader.manifest.fingerprint, name) for name in names}
    found: dict[str, list[Measure]] = {}
    for way, endpoint in at.items():
        with explained(way), _connect(endpoint, SUPERUSER) as connection:
            found[way] = [measure_roles(connection)]
            there = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
        for name in names:
            if name in there:
                with explained(way), _connect(endpoint, name) as connection:
                    found[way] += measure_database(connection, name, known[name])
    return found


RESTORE = Restore(
    scratch, place, ask, load, measure, version=("postgres", "--version"), lacking=LACKING
)


# ---------------------------------------------------------------------- inside
def _lsn(manifest: Manifest) -> str:
    """Where recovery stops; "" where there is no base backup."""
    points = (c.point for c in manifest.consistency if c.unit == "all databases")
    return next(points, "").removeprefix("LSN ")


def of_superuser(line: str) -> bool:
    """Whether a statement is about the superuser, whom every server has."""
    return line.startswith((f"CREATE ROLE {SUPERUSER};", f"ALTER ROLE {SUPERUSER} "))


def _connect(endpoint: Endpoint, database: str) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=endpoint.host,
        port=endpoint.port,
        user=SUPERUSER,
        dbname=database,
        connect_timeout=10,
        options=" ".join(f"-c {option}" for option in SESSION),
        autocommit=True,
    )


def run(command: Command, *words: str, stdin: str | None = None) -> str:
    """Run a client program; what it refuses is the data's fault, or ours, and no time heals it. Gives its output."""
    done = command.run(*words, timeout=LOAD_SECONDS, stdin=stdin)
    if done.returncode != 0:
        name, entry = Path(command.program).name, ENTRY.search(done.error)
        where = f" at {entry[1]}" if entry else ""
        raise PermanentError(f"{name} ended with {done.returncode}{where}", said=done.error)
    return done.stdout
