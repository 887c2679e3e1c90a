"""Backs PostgreSQL up: the whole cluster as files, every database as a dump, roles, a fingerprint, all of one moment.

Taken from a healthy standby whose replay is paused (`replay`): base backup, dumps and digests then see the same LSN.
By then it has all that the primary had when the backup began. Where no standby is fit, the primary is taken: its files
are of a moment later than its dumps, and the server's own counters say what clients changed in between (`writes`).
https://www.postgresql.org/docs/18/app-pgbasebackup.html,
https://www.postgresql.org/docs/18/app-pgdump.html
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from archive.backup.encryption import SUFFIX
from archive.backup.folders import folder_name
from archive.backup.manifest import Consistency, Engine, Measure
from archive.backup.writer import SetWriter
from archive.wal.point import SEGMENT, SETTLED, TIMELINE
from cluster.command import Command
from components.access import Access, Endpoint
from components.base import BackupContent
from components.postgresql.base_backup.basetar import BaseTar
from components.postgresql.base_backup.increment import MANIFEST, Base, find_base
from components.postgresql.base_backup.replay import paused_replay
from components.postgresql.base_backup.source import Source, choose_source, scratch_source
from components.postgresql.base_backup.writes import CHANGED, Watch
from components.postgresql.catalog.properties import FILE, FORM, read_globals
from components.postgresql.catalog.roles import Roles, read_unreadable
from components.postgresql.client import (
    LOCK_TIMEOUT,
    SCHEMA,
    SECRET,
    SUPERUSER,
    connect_long,
    program,
    where,
)
from components.postgresql.connection.failures import explained, first_error
from components.postgresql.connection.session import SESSION
from components.postgresql.dumps.contents import (
    Snapshot,
    Unreadable,
    locked,
    measure_all,
    snapshots,
)
from components.postgresql.fingerprint import measure_globals, measure_system
from components.postgresql.replacement.remarks import NEEDED
from errors import PermanentError, TemporaryError

PROGRAMS = ("pg_basebackup", "pg_dump", "pg_dumpall")
NOT_COVERED = (
    "replication slots, and changes that subscribers have not received yet",
    "WAL after the recovery point: changes between two backups",
    "repmgr's metadata in the dumps (a new cluster creates its own; the base backup has it)",
    "unlogged tables' rows",
    "rows of materialized views and of extensions' own tables in dumps, which a restore creates again (base backups "
    "have them)",
    "generated columns are not compared in tables with VIRTUAL columns, or with indexes or statistics that call "
    "functions; on a primary, in no table",
    "passwords of replication (primary_conninfo), which a new cluster creates; settings made with ALTER SYSTEM on a "
    "standby only: every member gets the primary's",
)
# What pg_dump says where another attempt may heal it; anything else is the database's own trouble.
PASSING = re.compile(
    r"deadlock|does not exist|server closed|terminating connection|conflict with recovery"
    r"|connection to server .* failed|sent no output for|No space left",
)
# pg_dump limits the statement that locks its tables (`getTables` in src/bin/pg_dump/pg_dump.c).
LOCKED = "canceling statement due to statement timeout"
# Of a table that was dropped since the snapshot (`LOCK TABLE` of `getTables`); of no database.
GONE = re.compile(
    r'relation "[^\n]*" does not exist|relation with OID \d+ does not exist|could not open relation with'
)
DROP_TRIES = 3
DROPPED = (
    f"tables in it were dropped while it was read, {DROP_TRIES + 1} times in a row: end what drops and makes them all "
    "the time"
)
# By the node's own clock: what is committed later is not in a base backup that ended before.
CLOCK = "SELECT clock_timestamp(), pg_size_bytes(current_setting('wal_segment_size'))"
CONFIGURATION = """
    SELECT name, setting, source FROM pg_settings
    WHERE source NOT IN ('default', 'session', 'client') AND name <> 'primary_conninfo' ORDER BY name
"""


def back_up(access: Access, writer: SetWriter) -> BackupContent:
    """Take one backup of all databases.

    Raises:
        TemporaryError: no node is suitable, or it was promoted or lost; a table was dropped.
        PermanentError: a program is missing.
    """
    with explained("backup"), _readable_names():
        return _back_up(access, writer, choose_source(access))


def dump_scratch(
    access: Access, node: Endpoint, writer: SetWriter, system: dict[str, str], why: str
) -> BackupContent:
    """Take a backup of the dumps alone of a scratch server, which nobody writes to.

    Args:
        access: to the scratch server.
        node: the server.
        writer: of the set.
        system: settings of ALTER SYSTEM, which the server itself does not have.
        why: reason that there is no base backup.

    Raises:
        TemporaryError: the server was lost.
        PermanentError: a program is missing.
    """
    with explained("backup"), _readable_names():
        return _back_up(access, writer, scratch_source(access, node, system), why)


@contextmanager
def _readable_names() -> Iterator[None]:
    try:
        yield
    except UnicodeError as exc:
        raise PermanentError(
            "the name of a role, a database or a tablespace is not valid UTF-8, so a manifest cannot hold it: rename "
            "it from a database with that encoding"
        ) from exc


def _back_up(access: Access, writer: SetWriter, source: Source, no_base: str = "") -> BackupContent:
    password = access.secret(SECRET, "postgres-password")
    if source.tablespaces and not no_base:
        names = ", ".join(source.tablespaces)
        no_base = f"pg_basebackup cannot send tablespaces ({names}) as one stream"
    programs = {
        name: program(access, name, password, source.node_status.number) for name in PROGRAMS
    }
    unreadable = Unreadable(partial(locked, access, source.node), dict(source.unreadable))
    missing: list[str] = []
    base: Base | None = None
    timeline = source.node_status.timeline
    with ExitStack() as stack:
        begun = datetime.now(UTC)
        point, settled = "", dict[str, Any]()
        if source.node_status.standby:
            pause = stack.enter_context(paused_replay(access, source.node))
            point = pause.point
            settled = _settled(access, source.node)
            unreadable.reasons.update({name: unreadable.locked(name) for name in pause.locked})
        still = source.still
        watch = None if still else Watch(access, source.node, source.databases, unreadable)
        found = stack.enter_context(snapshots(access, source.node, source.databases, unreadable))
        pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="fingerprint"))
        measured = pool.submit(measure_all, found, unreadable, unreadable.dropped.add, still=still)
        if no_base:
            missing.append(f"no base backup: {no_base}")
        else:
            base = find_base(access, writer, source.node, source.node_status)
            tar = _physical(writer, programs["pg_basebackup"], access, source, base)
            timeline, end = tar.reaches
            if not still:
                point, settled = end, _settled(access, source.node)
        for name, snapshot in found.items():
            _dump(writer, programs["pg_dump"], access, source, name, snapshot, unreadable)
        fingerprint = measured.result()
        for _ in range(DROP_TRIES):
            if not unreadable.dropped:
                break
            again = stack.enter_context(_again(access, source, unreadable))
            for name, snapshot in again.items():
                writer.drop(_file(name) + SUFFIX)
                _dump(writer, programs["pg_dump"], access, source, name, snapshot, unreadable)
            fingerprint = [one for one in fingerprint if one.unit not in map(_unit, again)]
            fingerprint += measure_all(again, unreadable, unreadable.dropped.add, still=still)
            found |= again
        unreadable.reasons.update(dict.fromkeys(unreadable.dropped, DROPPED))
        roles, whole, unkept = _globals(writer, programs["pg_dumpall"], access, source, found)
    fingerprint += whole
    written = watch.end(fingerprint) if watch else None
    if written:
        fingerprint = written.measures
    for name in unreadable.reasons:
        found.pop(name, None)
        writer.drop(_file(name) + SUFFIX)
    lost = {_unit(name) for name in unreadable.reasons}
    fingerprint = [one for one in fingerprint if one.unit not in lost]
    extensions = {
        f"{name}.{extension}": version
        for name, snapshot in found.items()
        for extension, version in snapshot.extensions
    }
    return BackupContent(
        engine=Engine(
            name="PostgreSQL",
            version=source.node_status.version,
            identity=source.node_status.system,
            extensions=extensions,
        ),
        topology={
            "taken_from": source.node.member,
            "role": "standby" if source.node_status.standby else "primary",
            TIMELINE: timeline,
            **settled,
            "replay_paused": source.node_status.standby,
            NEEDED: {name: needed for name, needed in roles.needed.items() if name in found},
            **({CHANGED: written.rows} if written else {}),
        },
        consistency=_consistency(source, found, point, begun, files=not no_base),
        fingerprint=tuple(fingerprint),
        tools={
            name: command.run("--version", timeout=20).stdout.strip()
            for name, command in programs.items()
        },
        not_covered=(*NOT_COVERED, *_left_out(found), *(written.not_covered if written else ())),
        missing=(*missing, *unkept, *unreadable.missing),
        needs=base.needs if base else (),
    )


def _settled(access: Access, node: Endpoint) -> dict[str, Any]:
    """What recovery to a point has to know of a base backup (`archive.wal.point`), for the manifest's topology."""
    with connect_long(access, node) as connection:
        row = connection.execute(CLOCK).fetchone()
    assert row is not None
    return {SETTLED: row[0].astimezone(UTC).isoformat(), SEGMENT: row[1]}


def _again(
    access: Access, source: Source, unreadable: Unreadable
) -> AbstractContextManager[dict[str, Snapshot]]:
    """New snapshots of the databases of which a table was dropped; on a standby that stands still there are none."""
    names = sorted(unreadable.dropped - unreadable.reasons.keys())
    unreadable.dropped.clear()
    return snapshots(access, source.node, names, unreadable)


def _left_out(found: dict[str, Snapshot]) -> list[str]:
    """What dumps of these databases leave out, by name."""
    return [
        f"invalid indexes of database {name}: {', '.join(snapshot.invalid)}"
        for name, snapshot in found.items()
        if snapshot.invalid
    ]


def _consistency(
    source: Source, found: dict[str, Snapshot], point: str, begun: datetime, *, files: bool
) -> tuple[Consistency, ...]:
    ended = datetime.now(UTC)
    logical = [
        Consistency(
            unit=f"database {name}",
            point=f"LSN {point}" if source.node_status.standby else f"snapshot {snapshot.visible}",
            begun=begun,
            ended=snapshot.taken,
        )
        for name, snapshot in found.items()
    ]
    if not files:
        return tuple(logical)
    whole = Consistency(
        unit="all databases",
        point=f"LSN {point}",
        begun=begun,
        ended=begun if source.node_status.standby else ended,
    )
    return (whole, *logical)


# ---------------------------------------------------------------------- the artefacts
def _physical(
    writer: SetWriter, basebackup: Command, access: Access, source: Source, base: Base | None
) -> BaseTar:
    """Store the base backup; returns what was seen of it."""
    with tempfile.NamedTemporaryFile(dir=writer.spool) as earlier:
        incremental = []
        form = "tar of pg_basebackup with WAL"
        if base is not None:
            earlier.write(base.manifest)
            earlier.flush()
            incremental, form = (
                [f"--incremental={earlier.name}"],
                "tar of pg_basebackup --incremental with WAL",
            )
        tar = BaseTar(
            basebackup.stream(
                f"--dbname={where(source.node)}", *incremental,
                "--pgdata=-", "--format=tar", "--wal-method=fetch", "--checkpoint=fast",
                "--label=isa-cloud", "--no-password",
                stall=access.settings.backup.stall_seconds,
            )
        )  # fmt: skip
        writer.add("base.tar", "all databases", form, tar, sum(source.databases.values()))
    # names and sizes of files: what the next incremental backup is told to rest on
    writer.add_plain(MANIFEST, "all databases", MANIFEST, [tar.manifest_bytes])
    return tar


def _dump(
    writer: SetWriter,
    pg_dump: Command,
    access: Access,
    source: Source,
    name: str,
    snapshot: Snapshot,
    unreadable: Unreadable,
) -> None:
    """Store one database's dump; what pg_dump alone cannot do with it costs the backup this database only."""
    if name in unreadable.reasons:
        return
    failed: list[TemporaryError] = []
    # pg_dump does so by itself for keys that are enums, but not for arrays of them and other relatives
    # (`forcePartitionRootLoad` in src/bin/pg_dump/pg_dump.c)
    moving = ["--load-via-partition-root"] if snapshot.moving else []

    def pieces() -> Iterator[bytes]:
        try:
            yield from pg_dump.stream(
                f"--dbname={where(source.node, name)}",
                "--format=custom", "--compress=0", f"--snapshot={snapshot.identity}",
                f"--exclude-schema={SCHEMA}", f"--lock-wait-timeout={LOCK_TIMEOUT}", "--no-password", *moving,
                stall=access.settings.backup.stall_seconds,
            )  # fmt: skip
        except TemporaryError as exc:
            failed.append(exc)
            raise

    size = source.databases[name]
    try:
        writer.add(_file(name), f"database {name}", "pg_dump custom", pieces(), size)
    except TemporaryError as exc:
        if failed and LOCKED in str(exc):
            unreadable.reasons[name] = unreadable.locked(name)
            return
        if failed and GONE.search(str(exc)) and not source.node_status.standby:
            unreadable.dropped.add(name)
            return
        if not failed or PASSING.search(str(exc)):
            raise
        unreadable.reasons[name] = f"pg_dump cannot read it: {first_error(str(exc))}"


def _globals(
    writer: SetWriter,
    dumpall: Command,
    access: Access,
    source: Source,
    found: dict[str, Snapshot],
) -> tuple[Roles, list[Measure], list[str]]:
    """Store what belongs to no database, as data, and as SQL for a restore by hand.

    Returns:
        The roles, the measures of all of it, and what cannot be kept.
    """
    pieces = dumpall.stream(
        f"--dbname={where(source.node, SUPERUSER)}", "--globals-only", "--no-password",
        stall=access.settings.backup.stall_seconds,
    )  # fmt: skip
    writer.add("globals.sql", "globals", "SQL of pg_dumpall --globals-only", pieces)
    writer.add_json("configuration.json", "globals", _configuration(access, source.node))
    with connect_long(access, source.node, SUPERUSER, *SESSION) as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        used = {name: snapshot.tablespaces for name, snapshot in found.items()}
        kept = read_globals(connection, used, source.system, source.tablespaces)
        measures = measure_globals(connection)
        unkept = [
            f"globals: {what} is not valid UTF-8, so no other server would accept it"
            for what in read_unreadable(connection)
        ]
    text = kept.model_dump_json(indent=1).encode()
    writer.add(FILE, "globals", FORM, [text])
    return kept.roles, [*measures, measure_system(source.system)], unkept


def _configuration(access: Access, node: Endpoint) -> dict[str, Any]:
    with connect_long(access, node) as connection:
        settings = connection.execute(CONFIGURATION).fetchall()
        rules = connection.execute(
            "SELECT type, database, user_name, address, netmask, auth_method FROM pg_hba_file_rules"
        ).fetchall()
    return {
        "settings": {name: {"value": value, "source": origin} for name, value, origin in settings},
        "pg_hba": [list(rule) for rule in rules],
    }


def _unit(database: str) -> str:
    return f"database {database}"


def _file(database: str) -> str:
    """Where a database's dump lies: any name is allowed for a database, and no two meet."""
    return f"databases/{folder_name(database)}.dump"
