"""Recovers PostgreSQL to a point between two backups: a base backup, then stored WAL, by the server's own settings.

The WAL is on the volume before the server starts, each byte compared with what was signed. A server that runs out of
WAL before its target ends with an error (`recovery ended before configured recovery target was reached`, in
src/backend/access/transam/xlogrecovery.c). The one that reached it writes down where and why it stopped, in the history
file of its new timeline, and is compared with the target by that.
https://www.postgresql.org/docs/18/runtime-config-wal.html#RUNTIME-CONFIG-WAL-RECOVERY-TARGET
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from archive.backup.manifest import Manifest, Measure
from archive.backup.reader import SetReader
from archive.backup.writer import SetWriter
from archive.evidence.verdicts import Difference
from archive.wal.bucket import WalReader
from archive.wal.names import lsn_number, lsn_text
from archive.wal.point import Point
from archive.wal.target import RecoveryTarget
from components.access import Access, Endpoint
from components.base import BackupContent, Recovered, Restore, RunningScratch, Scratch
from components.postgresql.backup import dump_scratch
from components.postgresql.catalog.properties import stored_globals
from components.postgresql.client import SECRET, SUPERUSER
from components.postgresql.connection.failures import explained, passing, server_words
from components.postgresql.restore import (
    FILES,
    PREPARE,
    RESTORE,
    base_scratch,
    connect_scratch,
    recovery_end,
)
from config.models import Settings
from errors import PermanentError

WAL, CONFIGURATION = "wal", "point.conf"  # on the volume
RECOVER = f"{PREPARE}cat /scratch/{CONFIGURATION} >> /scratch/recovery.conf\n"
# What a history file says of a recovery that stopped before a commit (`getRecoveryStopReason` in
# src/backend/access/transam/xlogrecovery.c).
BEFORE = "before "
TIMES = "SELECT pg_last_xact_replay_timestamp(), %s::timestamptz"
TIMESTAMP = re.compile(r"\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d[\d.:+-]*")
LACKS = (
    "the scratch engine's image lacks the extension amcheck: tables and indexes were not checked"
)
# A page begins with a header, which is longer on the first page of a segment (`SizeOfXLogShortPHD` and
# `SizeOfXLogLongPHD` in src/include/access/xlog_internal.h). A record that ends with its page ends before that header.
PAGE, SHORT_HEADER, LONG_HEADER = 8192, 24, 40
DATABASES = "SELECT datname FROM pg_database WHERE datallowconn AND datconnlimit <> -2 ORDER BY 1"
CHECKS = "isa_cloud_checks"  # schema of the extension, for the time of the check only
AVAILABLE = "SELECT 1 FROM pg_available_extensions WHERE name = 'amcheck'"
INSTALLED = """
    SELECT nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'amcheck'
"""
TABLES = """
    SELECT c.oid::bigint, format('%I.%I', nspname, relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace JOIN pg_am a ON a.oid = relam
    WHERE relkind IN ('r', 'm', 't') AND relpersistence = 'p' AND amname = 'heap' ORDER BY 2
"""
# Only for the server's own indexes all rows are looked up: an expression of a tenant's would be evaluated.
INDEXES = """
    SELECT c.oid::bigint, format('%I.%I', nspname, relname), nspname = 'pg_catalog'
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace JOIN pg_am a ON a.oid = relam
    JOIN pg_index i ON i.indexrelid = c.oid
    WHERE c.relkind = 'i' AND relpersistence = 'p' AND amname = 'btree' AND indisready AND indisvalid ORDER BY 2
"""
HEAP = "SELECT count(*), min(msg) FROM {}.verify_heapam(%s::regclass, check_toast => true)"
TREE = "SELECT 0, {}.bt_index_check(%s::regclass, %s)::text"


def place_wal(point: Point, reader: WalReader, directory: Path) -> None:
    """Write the WAL of a point, and the settings of its recovery.

    Args:
        point: that is covered.
        reader: of its WAL.
        directory: the volume.

    Raises:
        Damaged: an object does not exist, or is not what was signed.
        TemporaryError: the store does not answer.
    """
    wal = directory / WAL
    place = str(wal).replace("%", "%%")
    wal.mkdir(mode=0o700)
    reader.save(point.line, point.histories, point.base.segment, wal)
    settings = {
        "restore_command": f'cp "{place}/%f" "%p" 2> /dev/null',
        "recovery_target_timeline": str(point.line.timeline),
        "recovery_target_action": "promote",
        **_target(point.target),
    }
    quoted = {name: value.replace("'", "''") for name, value in settings.items()}
    text = "".join(f"{name} = '{value}'\n" for name, value in quoted.items())
    (directory / CONFIGURATION).write_text(text, encoding="utf-8")


def restore_to(point: Point, done: Callable[[Recovered], None], *, check: bool = True) -> Restore:
    """How a scratch engine recovers to a point.

    Args:
        point: that is covered.
        done: gets what the engine says of itself.
        check: whether tables and indexes are checked, too.
    """

    def scratch(_: Settings, manifest: Manifest, password: str) -> tuple[Scratch, ...]:
        # it asks for no password, and clients find one all the same
        secrets = {SECRET: {"postgres-password": password}}
        return (replace(base_scratch(manifest, RECOVER), secrets=secrets),)

    def load(access: Access, at: Mapping[str, Endpoint], reader: SetReader) -> None:
        """Nothing comes over the network."""

    def measure(
        access: Access, at: Mapping[str, Endpoint], reader: SetReader
    ) -> Mapping[str, list[Measure]]:
        done(_recovered(at[FILES], point, check=check))
        return {}

    return replace(RESTORE, scratch=scratch, load=load, measure=measure, reads_all=False)


def dump(
    served: RunningScratch, writer: SetWriter, reader: SetReader, point: Point, recovered: Recovered
) -> BackupContent:
    """Back up what a scratch server has that was recovered to a point: dumps, roles and a fingerprint.

    Args:
        served: the server.
        writer: of the new set.
        reader: of the set that the recovery began with. Settings of ALTER SYSTEM are in no WAL: they are its own.
        point: that was recovered to.
        recovered: what the server says of it.

    Raises:
        Damaged: an artefact of the set is not what was stored.
        PermanentError, TemporaryError: the server cannot be dumped.
    """
    kept = stored_globals(reader)
    why = (
        f"the databases are those of {point.target.words}, recovered from {point.base.manifest.id}"
    )
    taken = dump_scratch(
        served.access, served.at[FILES], writer, dict(kept.system) if kept else {}, why
    )
    begun = recovered.last or point.base.settled
    consistency = (
        one.model_copy(
            update={
                "point": f"LSN {recovered.lsn}",
                "begun": begun,
                "ended": recovered.stopped or begun,
            }
        )
        for one in taken.consistency
    )
    return replace(taken, consistency=tuple(consistency))


# ---------------------------------------------------------------------- where it stopped
def _target(target: RecoveryTarget) -> dict[str, str]:
    if target.time is None:
        # an LSN is the start of the first record that is left out
        return {"recovery_target_lsn": lsn_text(target.lsn), "recovery_target_inclusive": "off"}
    at = target.time.astimezone(UTC)
    return {
        "recovery_target_time": f"{at:%Y-%m-%d %H:%M:%S.%f}+00",
        "recovery_target_inclusive": "on",
    }


def _recovered(endpoint: Endpoint, point: Point, *, check: bool) -> Recovered:
    """What a server says of its recovery.

    Raises:
        PermanentError: it does not say where it stopped.
        TemporaryError: it went away.
    """
    with explained(FILES), connect_scratch(endpoint, SUPERUSER) as connection:
        lsn, reason = _stop(recovery_end(connection))
        last, stopped = _times(connection, reason.removeprefix(BEFORE) if point.target.time else "")
        databases = [name for (name,) in connection.execute(DATABASES).fetchall()]
        lacks = "" if connection.execute(AVAILABLE).fetchone() else LACKS
    found = Checks()
    for name in databases if check and not lacks else ():
        with explained(FILES), connect_scratch(endpoint, name) as connection:
            _check_database(connection, name, found)
    return Recovered(
        lsn=lsn_text(lsn), last=last, stopped=stopped, databases=len(databases), checked=found.number,
        faults=(*end_faults(point, lsn, last, stopped), *found.faults), messages=tuple(found.messages),
        unchecked=lacks,
    )  # fmt: skip


def _stop(fields: list[str]) -> tuple[int, str]:
    """At which LSN and why a recovery stopped, by its history file."""
    try:
        return lsn_number(fields[1]), fields[2]
    except (IndexError, ValueError) as exc:
        raise PermanentError("the server does not say where its recovery stopped") from exc


def _times(
    connection: psycopg.Connection[Any], stopped: str
) -> tuple[datetime | None, datetime | None]:
    """Time of the last commit that was replayed, and of the first that was not."""
    text = stopped if TIMESTAMP.fullmatch(stopped) else None
    row = connection.execute(TIMES, [text]).fetchone()
    assert row is not None
    return row[0], row[1]


def end_faults(
    point: Point, lsn: int, last: datetime | None, stopped: datetime | None
) -> Iterator[Difference]:
    """Compare where a recovery stopped with its target.

    Args:
        point: that it was to reach.
        lsn: behind the last record that was replayed.
        last: time of the last commit that was replayed; None if none was.
        stopped: time of the commit before which it stopped; None if it did not stop at one.
    """
    target, segment = point.target, point.base.segment
    least = max(point.base.end, target.lsn)
    if _next_record(lsn, segment) < _next_record(least, segment):
        yield _fault(f"it ended at {lsn_text(lsn)}, before {lsn_text(least)}")
    if target.time is None:
        return
    if stopped is None:
        yield _fault(f"it ended at {lsn_text(lsn)} without a commit after {target.text}")
    elif stopped <= target.time:
        yield _fault(f"it stopped at the commit of {stopped}, which is not after {target.text}")
    if last is not None and last > target.time:
        yield _fault(f"it replayed the commit of {last}, which is after {target.text}")


def _fault(what: str) -> Difference:
    return Difference(unit="recovery", item="end", what=what)


def _next_record(lsn: int, segment: int) -> int:
    """Where a record behind an LSN begins: behind the header of a page that begins there."""
    if lsn % PAGE:
        return lsn
    return lsn + (SHORT_HEADER if lsn % segment else LONG_HEADER)


# ---------------------------------------------------------------------- what it holds
@dataclass
class Checks:
    """The checks of relations so far.

    Attributes:
        number: of tables and indexes.
        faults: in them.
        messages: of the server; may quote data.
    """

    number: int = 0
    faults: list[Difference] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


def _check_database(connection: psycopg.Connection[Any], name: str, found: Checks) -> None:
    """Check each table and B-tree index of a database with PostgreSQL's amcheck, which is gone afterwards."""
    with connection.transaction(force_rollback=True):
        schema = _amcheck(connection)
        heap, tree = sql.SQL(HEAP).format(schema), sql.SQL(TREE).format(schema)
        relations = [
            *(
                (f"table {label}", heap, [oid])
                for oid, label in connection.execute(TABLES).fetchall()
            ),
            *(
                (f"index {label}", tree, [oid, whole])
                for oid, label, whole in connection.execute(INDEXES).fetchall()
            ),
        ]
        for item, query, values in relations:
            found.number += 1
            try:
                with connection.transaction():
                    row = connection.execute(query, values).fetchone()
                what = f"{row[0]} faults, the first: {row[1]}" if row and row[0] else ""
            except psycopg.Error as exc:
                if passing(exc):
                    raise
                what = f"it cannot be checked: SQLSTATE {exc.sqlstate}"
                found.messages.append(f"database {name}, {item}: {server_words(exc)}")
            if what:
                found.faults.append(Difference(unit=f"database {name}", item=item, what=what))


def _amcheck(connection: psycopg.Connection[Any]) -> sql.Identifier:
    """Schema of the extension, which is created where the database has it not."""
    row = connection.execute(INSTALLED).fetchone()
    if row is not None:
        return sql.Identifier(row[0])
    schema = sql.Identifier(CHECKS)
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
    connection.execute(sql.SQL("CREATE EXTENSION amcheck SCHEMA {}").format(schema))
    return schema
