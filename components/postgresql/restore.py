"""Brings PostgreSQL back: from the base backup up to the backup's own moment, and from the dumps into an empty server.

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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from archive.backup.manifest import Manifest, Measure
from archive.backup.reader import SetReader, opened
from archive.streams.spool import prepare_spool
from archive.wal.names import lsn_number
from archive.wal.point import BASE
from components.access import Access, Endpoint
from components.base import Restore, Scratch, Step
from components.postgresql.base_backup.writes import of_files
from components.postgresql.catalog.properties import Globals, restore_properties, stored_globals
from components.postgresql.catalog.roles import restore_roles
from components.postgresql.catalog.statements import role_statements
from components.postgresql.client import (
    MAINTENANCE,
    PORT,
    STATEFULSET,
    SUPERUSER,
    connect_superuser,
)
from components.postgresql.connection.failures import explained
from components.postgresql.connection.session import SESSION, WRITES
from components.postgresql.dumps.filling import Server, fill, make_database
from components.postgresql.dumps.truncation import save_dump
from components.postgresql.fingerprint import (
    GLOBAL_UNIT,
    items_of,
    measure_database,
    measure_globals,
    measure_system,
)
from components.postgresql.measures.definitions import SYSTEM_ITEM
from config.models import Settings
from errors import PermanentError

FILES, DUMPS = "files", "dumps"
GLOBALS, DUMP = "globals.sql", "pg_dump custom"
DATA, PARTS = "/scratch/data", "parts"
# What the source's files say must not count: an archive, a primary, memory of another machine. What ALTER SYSTEM set
# there is taken out of the files before the server starts (PREPARE).
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
synchronous_commit = off
# one checkpoint, at its end: rows that are loaded with an owner's rights are logged, and are as many bytes as the set
max_wal_size = 4GB
checkpoint_timeout = 1h
# what it would clean up and count is read once and thrown away
autovacuum = off
include_if_exists = '/scratch/recovery.conf'
"""
# The roles' own passwords are not known here. Who gets in at all is the network policy's business.
RULES = "host all all all trust\n"
CONFIG = {"postgresql.conf": SETTINGS, "pg_hba.conf": RULES, "pg_ident.conf": ""}
# A server that recovers refuses to start with less of these than the source had, as its control file says
# (`CheckRequiredParameterValues` in src/backend/access/transam/xlogrecovery.c); hot_standby is off, but prepared
# transactions need their room all the same.
PREPARE = """
set -eu
cd /scratch/data
rm -f standby.signal
touch recovery.signal
mv postgresql.auto.conf /scratch/source.auto.conf
: > postgresql.auto.conf
LC_ALL=C pg_controldata -D . > /scratch/control
while IFS='|' read -r name setting; do
  sed -n "s/^$name *\\([0-9][0-9]*\\)$/$setting = \\1/p" /scratch/control
done > /scratch/recovery.conf <<END
max_prepared_xacts setting:|max_prepared_transactions
max_worker_processes setting:|max_worker_processes
max_locks_per_xact setting:|max_locks_per_transaction
END
"""
RECOVER = """
if pg_waldump -q -p pg_wal -t {timeline} -s '{lsn}' -n 1 2> /dev/null; then
  printf "%s\\n" "recovery_target_lsn = '{lsn}'" "recovery_target_inclusive = off" \\
    "recovery_target_action = promote" >> /scratch/recovery.conf
fi
"""
# Where the timeline that a recovery ended began: behind the last record that it replayed.
ENDED = """
    SELECT pg_read_file(format('pg_wal/%s.history', left(pg_walfile_name(pg_current_wal_lsn()), 8)), true)
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
# An image without an extension that the source has says so, of a dump and of files.
LACKING = r'extension "[^"]+" is not available|could not access file "\$libdir/[^"]+"'
LSN = re.compile(r"[0-9A-F]{1,8}/[0-9A-F]{1,8}")


def scratch(_: Settings, manifest: Manifest, __: str) -> tuple[Scratch, ...]:
    """A server on the files, and an empty one for the dumps."""
    dumps = Scratch(
        DUMPS, STATEFULSET, "postgresql", COMMAND, PORT, files=CONFIG,
        steps=(Step("initdb", ("sh", "-c", INITDB), "L1"),),
    )  # fmt: skip
    if not _lsn(manifest):  # tablespaces: there is no base backup
        return (dumps,)
    recover = RECOVER.format(timeline=int(manifest.topology["timeline"]), lsn=_lsn(manifest))
    return base_scratch(manifest, PREPARE + recover), dumps


def base_scratch(manifest: Manifest, recover: str) -> Scratch:
    """A server on the files of the base backup.

    Args:
        manifest: of the set.
        recover: shell script that prepares its recovery.
    """
    steps = [Step("verify", ("pg_verifybackup", "-n", DATA), "L2")]
    if manifest.needs:
        parts = [f"/scratch/{PARTS}/{number}" for number in range(len(manifest.needs) + 1)]
        steps = [
            *(Step(f"verify-{n}", ("pg_verifybackup", "-n", part), "L2") for n, part in enumerate(parts)),
            Step("combine", ("pg_combinebackup", "--no-sync", "-o", DATA, *parts), "L2"),
        ]  # fmt: skip
    steps.append(Step("recover", ("sh", "-c", recover), "L2"))
    return Scratch(
        FILES, STATEFULSET, "postgresql", COMMAND, PORT, files=CONFIG, placed=(BASE,),
        steps=tuple(steps),
    )  # fmt: skip


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
    with connect_scratch(endpoint, SUPERUSER) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    return f"PostgreSQL {row[0]}" if row else ""


def load(access: Access, at: Mapping[str, Endpoint], reader: SetReader) -> None:
    """Give the empty server the roles and all dumps.

    Raises:
        Damaged: a dump is not what was stored.
        PermanentError: PostgreSQL does not take it; with its words.
        TemporaryError: a server is away.
    """
    server, spool = at[DUMPS], access.settings.backup.spool
    with explained(DUMPS), connect_scratch(server, MAINTENANCE) as connection:
        version = connection.info.server_version
        restored = _restore_globals(connection, reader)
    target = Server(access, server, version, "")
    with tempfile.TemporaryDirectory(dir=prepare_spool(spool)) as directory:
        for name in reader.names(DUMP):
            # a file, not a pipe: pg_restore fills tables in parallel from nothing else
            dump = save_dump(reader, name, Path(directory) / "database.dump")
            database = reader.unit(name).partition(" ")[2]
            if database != MAINTENANCE:  # it cannot be created over a connection to itself
                make_database(target, dump, "--clean", "--if-exists")
            fill(target, database, dump)
            dump.unlink()
    for one in restored.databases if restored else ():
        if one.name == MAINTENANCE:
            with explained(DUMPS), connect_scratch(server, SUPERUSER) as connection:
                restore_properties(connection, one.name, one)


def measure(
    _: Access, at: Mapping[str, Endpoint], reader: SetReader
) -> Mapping[str, list[Measure]]:
    """What either server holds, of the databases that the backup has.

    Raises:
        PermanentError: a server cannot read what it holds.
        TemporaryError: it went away.
    """
    fingerprint = reader.manifest.fingerprint
    # at once: each server hashes its own rows
    with ThreadPoolExecutor(len(at), thread_name_prefix="measure") as pool:
        running = {
            way: pool.submit(_measure_server, way, endpoint, reader.manifest)
            for way, endpoint in at.items()
        }
    found = {way: future.result() for way, future in running.items()}
    if SYSTEM_ITEM in items_of(fingerprint, GLOBAL_UNIT):
        # a scratch server has settings of its own: what would be set again is in the artefact
        kept = stored_globals(reader)
        for measures in found.values():
            measures.append(measure_system(kept.system if kept else {}))
    return found


def connect_scratch(endpoint: Endpoint, database: str) -> psycopg.Connection[Any]:
    """Connect to a scratch server as the superuser."""
    # a backup that was taken behind a fence says that its databases are read-only
    return connect_superuser(endpoint, database, "", *WRITES, *SESSION)


def recovery_end(connection: psycopg.Connection[Any]) -> list[str]:
    """What the history file of a promoted server says of its recovery: timeline, LSN and reason of its end.

    Nothing if the file does not exist.
    """
    row = connection.execute(ENDED).fetchone()
    lines = str(row[0] if row and row[0] else "").strip().splitlines()
    return lines[-1].split("\t") if lines else []


RESTORE = Restore(
    scratch, place, ask, load, measure, version=("postgres", "--version"), lacking=LACKING
)


# ---------------------------------------------------------------------- inside
def _measure_server(way: str, endpoint: Endpoint, manifest: Manifest) -> list[Measure]:
    """Measure what one server holds of the databases that the backup has."""
    fingerprint = manifest.fingerprint
    units = dict.fromkeys(m.unit for m in fingerprint)
    names = [unit.partition(" ")[2] for unit in units if unit.startswith("database ")]
    with explained(way), connect_scratch(endpoint, SUPERUSER) as connection:
        if way == FILES:
            _check_end(connection, manifest)
        found = measure_globals(connection, items_of(fingerprint, GLOBAL_UNIT))
        there = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
    for name in names:
        if name in there:
            with explained(way), connect_scratch(endpoint, name) as connection:
                items = items_of(fingerprint, f"database {name}")
                measures = measure_database(connection, name, items, still=True)
            found += of_files(manifest, name, measures) if way == FILES else measures
    return found


def _lsn(manifest: Manifest) -> str:
    """Where recovery stops; "" where there is no base backup.

    Raises:
        PermanentError: what the manifest says is no LSN; it becomes part of a command.
    """
    points = (c.point for c in manifest.consistency if c.unit == "all databases")
    point = next(points, "").removeprefix("LSN ")
    if point and not LSN.fullmatch(point):
        raise PermanentError(f"the manifest of {manifest.id} has no LSN to recover to: {point!r}")
    return point


def _restore_globals(connection: psycopg.Connection[Any], reader: SetReader) -> Globals | None:
    """Give an empty server what belongs to no database; gives what the backup says of it, if it is not an older one."""
    found = stored_globals(reader)
    if found is None:
        text = reader.read(GLOBALS).decode()
        for statement in role_statements(text, lambda name: name != SUPERUSER):
            connection.execute(statement.encode())
        return None
    restore_roles(connection, found.roles)
    connection.execute("SET allow_in_place_tablespaces = on")
    for name in found.tablespaces:
        # below the data directory: this machine has not the source's disks
        create = sql.SQL("CREATE TABLESPACE {} LOCATION ''")
        connection.execute(create.format(sql.Identifier(name)))
    return found


def _check_end(connection: psycopg.Connection[Any], manifest: Manifest) -> None:
    """Whether recovery ended where the fingerprint was taken, of a standby that stood still there.

    Raises:
        PermanentError: it did not; what the files hold is of another moment.
    """
    if not manifest.topology.get("replay_paused"):
        return
    fields = recovery_end(connection)
    end = fields[1] if fields else "an unknown LSN"
    # servers write an LSN with and without leading zeros
    if not LSN.fullmatch(end) or lsn_number(end) != lsn_number(_lsn(manifest)):
        raise PermanentError(
            f"recovery of the files ended at {end} instead of {_lsn(manifest)}, where the backup was measured"
        )
