"""Reads the databases of one node as of one moment each; one that cannot be read costs a set no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import psycopg

from archive.manifest import Measure
from components.access import Access, Endpoint
from components.postgresql.client import MAINTENANCE, connect_long
from components.postgresql.definitions import INVALID
from components.postgresql.failures import passing
from components.postgresql.fingerprint import SESSION, measure_database

T = TypeVar("T")

TABLESPACES = """
    SELECT DISTINCT spcname::text FROM pg_tablespace t
    WHERE spcname NOT IN ('pg_default', 'pg_global')
      AND (t.oid IN (SELECT reltablespace FROM pg_class)
           OR t.oid = (SELECT dattablespace FROM pg_database WHERE datname = current_database())) ORDER BY 1
"""
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
    """

    connection: psycopg.Connection[Any]
    identity: str
    visible: str
    taken: datetime
    extensions: tuple[tuple[str, str], ...]
    tablespaces: tuple[str, ...]
    invalid: tuple[str, ...]


@dataclass
class Unreadable:
    """Databases that cannot be read, and why; safe to use from several threads."""

    reasons: dict[str, str] = field(default_factory=dict)

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
            if passing(exc):
                raise
            self.reasons[name] = f"it cannot be read: SQLSTATE {exc.sqlstate}"
        except UnicodeError:
            self.reasons[name] = "names in it are not UTF-8, so a manifest cannot hold them"
        return None

    @property
    def missing(self) -> list[str]:
        """As a manifest names them."""
        return [f"database {name}: {why}" for name, why in sorted(self.reasons.items())]


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
            connection = _connected(access, node, name, unreadable)
            if connection is None:
                continue
            stack.enter_context(connection)
            opened = unreadable.try_to(lambda held=connection: _open(held), name)  # type: ignore[misc]
            if opened is not None:
                found[name] = opened
        yield found


def measure_all(found: dict[str, Snapshot], unreadable: Unreadable) -> list[Measure]:
    """Measure every database on its snapshot."""
    measures: list[Measure] = []
    for name, snapshot in found.items():
        got = unreadable.try_to(
            lambda held=snapshot, name=name: measure_database(held.connection, name),  # type: ignore[misc]
            name,
        )
        measures += got or []
    return measures


# ---------------------------------------------------------------------- inside
def _connected(
    access: Access, node: Endpoint, name: str, unreadable: Unreadable
) -> psycopg.Connection[Any] | None:
    """A session, or None where the database alone refuses it; one that was dropped meanwhile is not missed."""
    if name in unreadable.reasons:
        return None
    try:
        return connect_long(access, node, name, *SESSION)
    except psycopg.OperationalError as exc:
        with connect_long(access, node, MAINTENANCE) as connection:  # or the node is lost
            there = connection.execute(THERE, [name]).fetchone()
        if there:
            words = " ".join(str(exc).split("FATAL:")[-1].split())
            unreadable.reasons[name] = f"it lets nobody in: {words}"
        return None


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
    identity, visible, taken = row
    return Snapshot(connection, identity, visible, taken, tuple(extensions), tablespaces, invalid)
