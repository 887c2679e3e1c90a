"""What a database holds, as counts and digests that do not depend on order, for a restore to be compared with.

A row counts as its text with fixed session settings, hashed with the server's own `hashtextextended`; a table as
number of rows, sum and exclusive-or of the hashes, so that two rows that change places, or one that is there twice,
are seen. Everything is asked in one transaction, on the snapshot that the dump is made of.

A backup is compared by the items that its own fingerprint names: an older one knows fewer, two whose text has changed,
and rows that a dump makes again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import psycopg
from psycopg import sql

from archive.backup.manifest import Measure
from components.digest import NAMED, Digest
from components.postgresql.catalog.settings import LISTS, spaced
from components.postgresql.measures.definitions import (
    CATALOGUES,
    DEFINITIONS,
    EARLIER,
    EARLIER_GLOBALS,
    GLOBALS,
    SYSTEM_ITEM,
)
from components.postgresql.measures.expressions import canonical
from components.postgresql.measures.rows import hashed, measure_restored, measure_source

GLOBAL_UNIT = "globals"  # roles, and what is set for the server as a whole

NAMES = "SELECT name, to_hex(hashtextextended(t, 0)) FROM {source}"


def items_of(fingerprint: Collection[Measure], unit: str) -> set[str]:
    """What a backup's fingerprint knows of a unit."""
    return {measure.item for measure in fingerprint if measure.unit == unit}


def measure_database(
    connection: psycopg.Connection[Any],
    database: str,
    items: Collection[str],
    *,
    still: bool = False,
) -> list[Measure]:
    """Measure a database that was restored, by what its backup knows.

    Args:
        connection: to that database, with the settings of `session.SESSION`.
        database: its name.
        items: that a backup knows of it.
        still: whether no other session can change a table now.

    Returns:
        One measure a table, and one for each kind of definition.
    """
    unit = f"database {database}"
    rows = measure_restored(connection, unit, items, still=still)
    return [*rows, *measure_definitions(connection, unit, items)]


def measure_original(
    connection: psycopg.Connection[Any],
    database: str,
    *,
    still: bool,
    failed: Callable[[str, str], None],
    dropped: Callable[[str], None],
) -> list[Measure]:
    """Measure all of a database that is backed up, in the connection's transaction.

    Args:
        connection: to that database, with the settings of `session.SESSION`, on the snapshot that counts.
        database: its name.
        still: whether no session can change a table now (a standby whose replay is paused).
        failed: gets the name of a table whose rows cannot be read, and why.
        dropped: gets the name of a table that was dropped since.
    """
    unit = f"database {database}"
    rows = measure_source(connection, unit, still=still, failed=failed, dropped=dropped)
    return [*rows, *measure_definitions(connection, unit, (*CATALOGUES, *DEFINITIONS))]


def measure_definitions(
    connection: psycopg.Connection[Any], unit: str, items: Collection[str]
) -> Iterator[Measure]:
    """Measure what a database defines.

    Args:
        connection: to that database, with the settings of `session.SESSION`.
        unit: that measures are of.
        items: kinds of definitions that are measured.
    """
    for item, rows in {**CATALOGUES, **EARLIER}.items():
        if item in items:
            yield _defined(connection, unit, item, sql.SQL(rows))
    for item, rows in DEFINITIONS.items():
        if item in items:
            yield _described(connection, unit, item, rows)


def measure_globals(
    connection: psycopg.Connection[Any],
    items: Collection[str] = tuple(GLOBALS),
    names: Collection[str] | None = None,
) -> list[Measure]:
    """Measure the roles of a server; passwords are left out.

    Args:
        connection: to any database, as the superuser, with the settings of `session.SESSION`.
        items: kinds of things that are measured; those that a backup is compared by, else all.
        names: roles that count; all if not given.

    Returns:
        One measure an item.
    """
    every = "ARRAY(SELECT rolname FROM pg_authid)"
    known = sql.SQL(every) if names is None else sql.Literal(list(names))
    only = sql.SQL("rolname = ANY ({})").format(known)
    found = []
    for item, rows in {**GLOBALS, **EARLIER_GLOBALS}.items():
        if item in items:
            text = sql.SQL(rows).format(only=only, names=known)
            found.append(_defined(connection, GLOBAL_UNIT, item, text))
    return found


def measure_system(settings: Mapping[str, str]) -> Measure:
    """Measure the settings of ALTER SYSTEM.

    Args:
        settings: name → value.
    """
    digest = Digest()
    for name, value in sorted(settings.items()):
        digest.add_document([name, spaced(value) if name in LISTS else value], name)
    return digest.measure(GLOBAL_UNIT, SYSTEM_ITEM)


def _described(connection: psycopg.Connection[Any], unit: str, item: str, rows: str) -> Measure:
    """Measure definitions by texts that a restore does not change."""
    digest = Digest()
    for name, text in connection.execute(rows.encode()).fetchall():
        digest.add_document([name, canonical(text)], name)
    return digest.measure(unit, item)


def _defined(
    connection: psycopg.Connection[Any], unit: str, item: str, rows: sql.Composable
) -> Measure:
    """Measure definitions, with their names where they are few."""
    source = sql.SQL("({}) AS rows").format(rows)
    found = hashed(connection, unit, item, source, sql.SQL("t"))
    if not 0 < found.count <= NAMED:
        return found
    names = dict(connection.execute(sql.SQL(NAMES).format(source=source)).fetchall())
    return found.model_copy(update={"names": names if len(names) == found.count else {}})
