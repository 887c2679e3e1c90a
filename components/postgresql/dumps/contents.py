"""Reads the databases of one node as of one moment each; one that cannot be read costs a backup no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import psycopg

from archive.backup.manifest import Measure
from components.access import Access, Endpoint
from components.postgresql.client import MAINTENANCE, connect_long
from components.postgresql.connection.failures import passing
from components.postgresql.connection.session import SESSION
from components.postgresql.fingerprint import measure_original
from components.postgresql.measures.definitions import INVALID
from components.postgresql.measures.rows import MOVING

T = TypeVar("T")

TABLESPACES = """
    SELECT DISTINCT spcname::text FROM pg_tablespace t
    WHERE spcname NOT IN ('pg_default', 'pg_global')
      AND (t.oid IN (SELECT reltablespace FROM pg_class)
           OR t.oid = (SELECT dattablespace FROM pg_database WHERE datname = current_database())) ORDER BY 1
"""
LOCKED = """
    SELECT format('%s.%s held by %s', n.nspname, c.relname,
                  CASE WHEN a.pid IS NULL THEN 'a session on the primary'
                       ELSE format('process %s of role %s', l.pid, a.usename) END)
    FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_stat_activity a ON a.pid = l.pid AND a.usename IS NOT NULL
    WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted AND c.relkind IN ('r', 'p', 'm', 'v')
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY c.relkind = 'v', 1
"""
NAMED = 3  # locked tables
LOCK_NOT_AVAILABLE = "55P03"
THERE = "SELECT 1 FROM pg_database WHERE datname = %s"


@dataclass(frozen=True)
class Snapshot:
    """A transaction that sees one moment of one database, for others to join.

    Attributes:
        connection: that holds it open.
        identity: to give to pg_dump.
        visible: which transactions it sees, as PostgreSQL writes it.
        taken: when.
        extensions: name and version of each.
        tablespaces: names of those that it uses, beyond the usual ones.
        invalid: indexes that are not valid, and that a dump leaves out.
        moving: whether rows may lie in other partitions after a restore.
    """

    connection: psycopg.Connection[Any]
    identity: str
    visible: str
    taken: datetime
    extensions: tuple[tuple[str, str], ...]
    tablespaces: tuple[str, ...]
    invalid: tuple[str, ...]
    moving: bool


@dataclass
class Unreadable:
    """What cannot be read, and why; safe to use from several threads.

    Attributes:
        locked: says why a database cannot be read of which a table is locked.
        reasons: databases → why.
        tables: databases → tables whose rows cannot be measured → why.
        dropped: databases of which a table was dropped while they were read: only another snapshot can be read.
    """

    locked: Callable[[str], str]
    reasons: dict[str, str] = field(default_factory=dict)
    tables: dict[str, dict[str, str]] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)

    def try_to(self, read: Callable[[], T], name: str) -> T | None:
        """Read something of a database; what no later attempt heals is noted, and None is given.

        Raises:
            psycopg.Error: another attempt may heal it.
        """
        if name in self.reasons:
            return None
        try:
            return read()
        except psycopg.Error as exc:
            if exc.sqlstate == LOCK_NOT_AVAILABLE:
                self.reasons[name] = self.locked(name)
                return None
            if passing(exc):
                raise
            self.reasons[name] = f"it cannot be read: SQLSTATE {exc.sqlstate}"
        except UnicodeError:
            self.reasons[name] = "names in it are not UTF-8, so a manifest cannot hold them"
        return None

    @property
    def missing(self) -> list[str]:
        """As a manifest names them."""
        databases = [f"database {name}: {why}" for name, why in sorted(self.reasons.items())]
        rows = [
            f"table {table} of database {name} is not compared: its rows cannot be read as text ({why}), so no "
            "verification compares them"
            for name, tables in sorted(self.tables.items())
            if name not in self.reasons
            for table, why in sorted(tables.items())
        ]
        return [*databases, *rows]


def locked(access: Access, node: Endpoint, database: str) -> str:
    """Why a database cannot be read, of which a client holds a table all the time (`LOCK TABLE`).

    Args:
        access: the way in.
        node: that is backed up.
        database: its name.
    """
    try:
        with connect_long(access, node, database) as connection:
            found = [words for (words,) in connection.execute(LOCKED.encode()).fetchall()]
    except psycopg.Error:
        found = []
    which = f" ({', '.join(found[:NAMED])})" if found else ""
    return f"a table is locked, so it cannot be read{which}: end the session that holds the lock"


def connected(
    access: Access, node: Endpoint, name: str, unreadable: Unreadable
) -> psycopg.Connection[Any] | None:
    """Connect to a database for a backup.

    Args:
        access: the way in.
        node: that is asked.
        name: of the database.
        unreadable: gets it if it alone refuses.

    Returns:
        The session; None if only this database refuses it, or if it was dropped.

    Raises:
        psycopg.Error: the node is lost.
    """
    if name in unreadable.reasons:
        return None
    try:
        return connect_long(access, node, name, *SESSION)
    except psycopg.OperationalError as exc:
        with connect_long(access, node, MAINTENANCE) as connection:  # or the node is lost
            there = connection.execute(THERE, [name]).fetchone()
        if there:
            words = " ".join(str(exc).split("FATAL:")[-1].split())
            unreadable.reasons[name] = f"it accepts no connections: {words}"
        return None


@contextmanager
def snapshots(
    access: Access, node: Endpoint, names: Iterable[str], unreadable: Unreadable
) -> Iterator[dict[str, Snapshot]]:
    """Open a snapshot of each database.

    Args:
        access: the way in.
        node: that is asked.
        names: of the databases.
        unreadable: gets those that cannot be opened.

    Raises:
        psycopg.Error: the node is lost.
    """
    with ExitStack() as stack:
        found = {}
        for name in names:
            connection = connected(access, node, name, unreadable)
            if connection is None:
                continue
            stack.enter_context(connection)
            opened = unreadable.try_to(lambda held=connection: _open(held), name)  # type: ignore[misc]
            if opened is not None:
                found[name] = opened
        yield found


def measure_all(
    found: dict[str, Snapshot],
    unreadable: Unreadable,
    dropped: Callable[[str], None],
    *,
    still: bool,
) -> list[Measure]:
    """Measure every database on its snapshot.

    Args:
        found: snapshots by database.
        unreadable: gets databases and tables that cannot be measured.
        dropped: gets a database of which a table was dropped since.
        still: whether nobody can change a table now.
    """
    measures: list[Measure] = []
    for name, snapshot in found.items():
        measure = partial(
            measure_original, snapshot.connection, name, still=still,
            failed=unreadable.tables.setdefault(name, {}).__setitem__, dropped=lambda _, name=name: dropped(name),  # type: ignore[misc]
        )  # fmt: skip
        measures += unreadable.try_to(measure, name) or []
    return measures


# ---------------------------------------------------------------------- inside
def _open(connection: psycopg.Connection[Any]) -> Snapshot:
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    row = connection.execute(
        "SELECT pg_export_snapshot(), pg_current_snapshot()::text, clock_timestamp()"
    ).fetchone()
    assert row is not None
    extensions = connection.execute("SELECT extname, extversion FROM pg_extension").fetchall()
    tablespaces, invalid = (
        tuple(name for (name,) in connection.execute(query.encode()).fetchall())
        for query in (TABLESPACES, INVALID)
    )
    moving = connection.execute(f"SELECT EXISTS ({MOVING})".encode()).fetchone() == (True,)
    identity, visible, taken = row
    return Snapshot(
        connection, identity, visible, taken, tuple(extensions), tablespaces, invalid, moving
    )
