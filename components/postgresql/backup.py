"""Backs PostgreSQL up: the whole cluster as files, every database as a dump, roles, a fingerprint, all of one moment.

Taken from a healthy standby whose replay is paused (`replay`): base backup, dumps and digests then see the same LSN.
By then it has all that the primary had when the backup began. Where no standby is fit, the primary is taken: its files
are of a moment later than its dumps, and what clients changed in between is counted before and after, without a digest.
https://www.postgresql.org/docs/18/app-pgbasebackup.html,
https://www.postgresql.org/docs/18/app-pgdump.html
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from archive.manifest import Consistency, Engine, Measure
from archive.writer import SetWriter
from cluster.command import Command
from components.access import Access, Endpoint
from components.base import Taken
from components.digest import settled
from components.postgresql.basetar import BaseTar
from components.postgresql.client import (
    PORT,
    SCHEMA,
    SECRET,
    STATEFULSET,
    SUPERUSER,
    Standing,
    connect_long,
    explained,
    program,
    standing,
    where,
)
from components.postgresql.fingerprint import SESSION, measure_database, measure_roles
from components.postgresql.increment import MANIFEST, Base, find_base
from components.postgresql.replay import paused_replay
from components.questions import ask_members, words
from errors import TemporaryError

PROGRAMS = ("pg_basebackup", "pg_dump", "pg_dumpall")
CATCH_UP_SECONDS, CATCH_UP_PAUSE = 20.0, 0.1  # one that needs longer is no fit source
NO_NODE = "no primary, and no standby that streams"
# repmgr's own tables describe nodes, which a restore has others of
LEFT_OUT = ("repmgr",)
NOT_COVERED = (
    "replication slots, and what subscribers have not yet received",
    "WAL after the recovery point: changes between two backups",
    "repmgr's metadata in the dumps (a new cluster makes its own; the base backup has it)",
    "unlogged tables' rows",
    "rows of materialized views and extensions' own tables in dumps, which make them anew (base backups have them)",
    "dumps of templates and of databases that allow no connections: the base backup has them",
)
RECEIVER = """
    SELECT status, pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::bigint
    FROM pg_stat_wal_receiver
"""
CONFIGURATION = """
    SELECT name, setting, source FROM pg_settings
    WHERE source NOT IN ('default', 'session', 'client') AND name <> 'primary_conninfo' ORDER BY name
"""


@dataclass(frozen=True)
class Source:
    """The node that is backed up.

    Attributes:
        node: where it listens.
        standing: what it says of itself.
        databases: name → size in bytes.
        tablespaces: number beyond the two that always are.
    """

    node: Endpoint
    standing: Standing
    databases: dict[str, int]
    tablespaces: int


def back_up(access: Access, writer: SetWriter) -> Taken:
    """Take one set of all databases.

    Raises:
        TemporaryError: no node is fit, it was promoted or lost meanwhile; a table was dropped.
        PermanentError: a program is missing.
    """
    with explained("backup"):
        return _back_up(access, writer)


def _back_up(access: Access, writer: SetWriter) -> Taken:
    password = access.secret(SECRET, "postgres-password")
    programs = {name: program(access, name, password) for name in PROGRAMS}
    source = _choose(access)
    missing: list[str] = []
    needs: tuple[str, ...] = ()
    with ExitStack() as stack:
        begun = datetime.now(UTC)
        point = ""
        if source.standing.standby:
            point = stack.enter_context(paused_replay(access, source.node))
        snapshots = stack.enter_context(_snapshots(access, source))
        pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="fingerprint"))
        measured = pool.submit(_measure, snapshots)
        if source.tablespaces:
            missing.append(
                f"the base backup: {source.tablespaces} tablespaces, which pg_basebackup does not send as one stream"
            )
        else:
            base = find_base(access, writer, source.node, source.standing)
            point = _physical(writer, programs["pg_basebackup"], access, source, point, base)
            needs = base.needs if base else ()
        for name, snapshot in snapshots.items():
            _dump(writer, programs["pg_dump"], access, source, name, snapshot)
        _globals(writer, programs["pg_dumpall"], access, source)
        writer.add_json("configuration.json", "globals", _configuration(access, source.node))
        fingerprint = measured.result()
        if not source.standing.standby:
            # by now clients have changed what the dumps did not see and the files have
            with _snapshots(access, source) as later:
                fingerprint = settled(fingerprint, _measure(later))
    extensions = {
        f"{name}.{extension}": version
        for name, snapshot in snapshots.items()
        for extension, version in snapshot.extensions
    }
    return Taken(
        engine=Engine(
            name="PostgreSQL",
            version=source.standing.version,
            identity=source.standing.system,
            extensions=extensions,
        ),
        topology={
            "taken_from": source.node.member,
            "role": "standby" if source.standing.standby else "primary",
            "timeline": source.standing.timeline,
            "replay_paused": source.standing.standby,
        },
        consistency=_consistency(source, snapshots, point, begun),
        fingerprint=tuple(fingerprint),
        tools={
            name: command.run("--version", timeout=20).stdout.strip()
            for name, command in programs.items()
        },
        not_covered=NOT_COVERED,
        missing=tuple(missing),
        needs=needs,
    )


# ---------------------------------------------------------------------- where from
def _choose(access: Access) -> Source:
    """A standby within the limit, once it has all that was committed by now; else the primary."""
    wanted = access.settings.components.postgresql
    nodes = {e.member: e for e in access.endpoints(STATEFULSET, wanted.members, PORT)}
    answers = ask_members(
        nodes.values(), lambda node: (standing(access, node, superuser=True), _behind(access, node))
    )
    fit = sorted(
        (behind, name)
        for name, (one, behind) in answers.good.items()
        if one.standby and behind is not None and behind <= wanted.max_lag_bytes
    )
    primaries = [name for name, (one, _) in answers.good.items() if not one.standby]
    name = next(iter(primaries), None)
    if name is None:
        name = fit[0][1] if fit else None  # nobody is left who could have more
    elif fit:
        name = _caught_up(access, nodes[name], [nodes[one] for _, one in fit]) or name
    if name is None:
        raise TemporaryError(
            f"no node of PostgreSQL can be backed up: {words(answers.bad) or NO_NODE}",
            delay=20,
        )
    with connect_long(access, nodes[name]) as connection:
        databases = connection.execute(
            "SELECT datname, pg_database_size(datname) FROM pg_database "
            "WHERE datallowconn AND NOT datistemplate AND datname <> ALL(%s) ORDER BY datname",
            [list(LEFT_OUT)],
        ).fetchall()
        tablespaces = connection.execute(
            "SELECT count(*) FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')"
        ).fetchone()
    return Source(
        nodes[name], answers.good[name][0], dict(databases), tablespaces[0] if tablespaces else 0
    )


def _caught_up(access: Access, primary: Endpoint, standbys: list[Endpoint]) -> str | None:
    """The first standby to replay what the primary has now; None if none does in time.

    A set says when it was begun, and a rebuild relies on it: what was committed before must be in it.
    """
    query = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
    try:
        with connect_long(access, primary) as connection:
            point = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while True:
            for standby in standbys:
                with connect_long(access, standby) as connection:
                    if connection.execute(query, point).fetchone() == (True,):
                        return standby.member
            if time.monotonic() > deadline:
                return None
            time.sleep(CATCH_UP_PAUSE)
    except psycopg.Error as exc:
        raise TemporaryError(
            f"PostgreSQL: a node was lost at the start of its backup: {exc}", delay=15
        ) from exc


def _behind(access: Access, node: Endpoint) -> int | None:
    """Bytes of WAL that a standby has received and not replayed; None if it does not stream."""
    with connect_long(access, node) as connection:
        row = connection.execute(RECEIVER).fetchone()
    return int(row[1] or 0) if row is not None and row[0] == "streaming" else None


# ---------------------------------------------------------------------- the moment
@dataclass(frozen=True)
class Snapshot:
    """A transaction that sees one moment of one database, for others to join.

    Attributes:
        connection: that holds it open.
        identity: to give to pg_dump.
        visible: which transactions it sees, as PostgreSQL writes it.
        taken: when.
        extensions: name and version of each.
    """

    connection: psycopg.Connection[Any]
    identity: str
    visible: str
    taken: datetime
    extensions: tuple[tuple[str, str], ...]


@contextmanager
def _snapshots(access: Access, source: Source) -> Iterator[dict[str, Snapshot]]:
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(_snapshot(access, source.node, name))
            for name in source.databases
        }


@contextmanager
def _snapshot(access: Access, node: Endpoint, database: str) -> Iterator[Snapshot]:
    with connect_long(access, node, database, *SESSION) as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        row = connection.execute(
            "SELECT pg_export_snapshot(), pg_current_snapshot()::text, clock_timestamp()"
        ).fetchone()
        assert row is not None
        extensions = connection.execute("SELECT extname, extversion FROM pg_extension").fetchall()
        yield Snapshot(connection, row[0], row[1], row[2], tuple(extensions))


def _measure(snapshots: dict[str, Snapshot]) -> list[Measure]:
    found = [
        measure
        for name, snapshot in snapshots.items()
        for measure in measure_database(snapshot.connection, name)
    ]
    any_of_them = next(iter(snapshots.values()))
    return [measure_roles(any_of_them.connection), *found]


def _consistency(
    source: Source, snapshots: dict[str, Snapshot], point: str, begun: datetime
) -> tuple[Consistency, ...]:
    ended = datetime.now(UTC)
    logical = [
        Consistency(
            unit=f"database {name}",
            point=f"LSN {point}" if source.standing.standby else f"snapshot {snapshot.visible}",
            begun=begun,
            ended=snapshot.taken,
        )
        for name, snapshot in snapshots.items()
    ]
    if source.tablespaces:
        return tuple(logical)
    whole = Consistency(
        unit="all databases",
        point=f"LSN {point}",
        begun=begun,
        ended=begun if source.standing.standby else ended,
    )
    return (whole, *logical)


# ---------------------------------------------------------------------- the artefacts
def _physical(
    writer: SetWriter,
    basebackup: Command,
    access: Access,
    source: Source,
    point: str,
    base: Base | None,
) -> str:
    """Store the base backup; returns the LSN that a restore of it reaches."""
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
    return point or max(str(r["End-LSN"]) for r in tar.manifest["WAL-Ranges"])


def _dump(
    writer: SetWriter,
    pg_dump: Command,
    access: Access,
    source: Source,
    name: str,
    snapshot: Snapshot,
) -> None:
    pieces = pg_dump.stream(
        f"--dbname={where(source.node, name)}",
        "--format=custom", "--compress=0", f"--snapshot={snapshot.identity}",
        f"--exclude-schema={SCHEMA}", "--lock-wait-timeout=60s", "--no-password",
        stall=access.settings.backup.stall_seconds,
    )  # fmt: skip
    file = f"databases/{_file(name)}.dump"
    writer.add(file, f"database {name}", "pg_dump custom", pieces, source.databases[name])


def _globals(writer: SetWriter, dumpall: Command, access: Access, source: Source) -> None:
    pieces = dumpall.stream(
        f"--dbname={where(source.node, SUPERUSER)}", "--globals-only", "--no-password",
        stall=access.settings.backup.stall_seconds,
    )  # fmt: skip
    writer.add("globals.sql", "globals", "SQL of pg_dumpall --globals-only", pieces)


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


def _file(database: str) -> str:
    """A database's name as a file's: any name is allowed for a database."""
    return "".join(c if c.isalnum() or c in "-_" else f"%{ord(c):02x}" for c in database)
