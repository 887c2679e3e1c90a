"""What a database holds, as counts and digests that do not depend on order, for a restore to be compared with.

A row counts as its text with fixed session settings, hashed with the server's own `hashtextextended`; a table as
number of rows, sum and exclusive-or of the hashes, so that two rows that change places, or one that is there twice,
are seen. Everything is asked in one transaction, on the snapshot that the dump is made of.

A set is compared by the items that its own fingerprint names: an older one knows fewer, two whose text has changed, and
rows that a dump makes anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import psycopg
from psycopg import sql

from archive.manifest import Measure
from cluster.command import CANCELLATION
from components.digest import NAMED, Digest
from components.postgresql.client import SCHEMA
from components.postgresql.definitions import (
    CATALOGUES,
    DEFINITIONS,
    EARLIER,
    EARLIER_GLOBALS,
    GLOBALS,
    SYSTEM_ITEM,
    TABLES,
)
from components.postgresql.expressions import canonical

GLOBAL_UNIT = "globals"  # roles, and what is set for the server as a whole
OLDER = "columns"  # an item of sets whose rows were measured in the order of their columns
# Their text; `format` asks the type's output function, where a cast may be a user's own.
WHOLE_ROW = sql.SQL("format('%s', row_of_table.*)")
CANCEL_SECONDS = 5.0  # the request to end a query is a connection of its own

# Text of a value depends on these.
SESSION = (
    "extra_float_digits=1", "datestyle=ISO", "intervalstyle=postgres", "timezone=UTC",
    "bytea_output=hex", "search_path=pg_catalog", "lc_monetary=C", "xmlbinary=base64",
)  # fmt: skip
DIGEST = """
    SELECT count(*), coalesce(sum(h), 0)::text, coalesce(bit_xor(h), 0)::text
    FROM (SELECT hashtextextended({text}, 0) AS h FROM {source}) AS hashes
"""
NAMES = "SELECT name, to_hex(hashtextextended(t, 0)) FROM {source}"


def items_of(fingerprint: Collection[Measure], unit: str) -> set[str]:
    """What a set's fingerprint knows of a unit."""
    return {one.item for one in fingerprint if one.unit == unit}


def measure_database(
    connection: psycopg.Connection[Any],
    database: str,
    items: Collection[str] = (*CATALOGUES, *DEFINITIONS),
) -> list[Measure]:
    """Measure a database in the connection's transaction.

    Args:
        connection: to that database, with the settings of `SESSION`, on the snapshot that counts.
        database: its name.
        items: kinds of definitions that are measured; those that a set is compared by, else all.

    Returns:
        One measure a table, and one for each kind of definition.
    """
    unit, found = f"database {database}", []
    for schema, table, made_anew, columns in connection.execute(TABLES, [SCHEMA]).fetchall():
        if made_anew and f"table {schema}.{table}" not in items:
            continue
        source = sql.SQL("ONLY {} AS row_of_table").format(sql.Identifier(schema, table))
        text = WHOLE_ROW if OLDER in items else _by_name(columns)
        found.append(_measure(connection, unit, f"table {schema}.{table}", source, text))
    for item, rows in {**CATALOGUES, **EARLIER}.items():
        if item in items:
            found.append(_defined(connection, unit, item, sql.SQL(rows)))
    for item, rows in DEFINITIONS.items():
        if item in items:
            found.append(_described(connection, unit, item, rows))
    return found


def measure_globals(
    connection: psycopg.Connection[Any],
    items: Collection[str] = tuple(GLOBALS),
    names: Collection[str] | None = None,
) -> list[Measure]:
    """Measure the roles of a server; passwords are left out.

    Args:
        connection: to any database, as the superuser, with the settings of `SESSION`.
        items: kinds of things that are measured; those that a set is compared by, else all.
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
        digest.add_document([name, value], name)
    return digest.measure(GLOBAL_UNIT, SYSTEM_ITEM)


def _by_name(columns: Iterable[str]) -> sql.Composable:
    """Text of a row, columns in the order of their names, by the types' own output, which no user's cast changes."""
    names = [sql.Identifier("row_of_table", column) for column in columns]
    return sql.SQL("ROW({})::text").format(sql.SQL(", ").join(names))


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
    found = _measure(connection, unit, item, source, sql.SQL("t"))
    if not 0 < found.count <= NAMED:
        return found
    names = dict(connection.execute(sql.SQL(NAMES).format(source=source)).fetchall())
    return found.model_copy(update={"names": names if len(names) == found.count else {}})


def _measure(
    connection: psycopg.Connection[Any],
    unit: str,
    item: str,
    source: sql.Composable,
    text: sql.Composable,
) -> Measure:
    query = sql.SQL(DIGEST).format(text=text, source=source)
    with CANCELLATION.ending(lambda: connection.cancel_safe(timeout=CANCEL_SECONDS)):
        row = connection.execute(query).fetchone()  # of a large table it takes long
    assert row is not None  # an aggregate always gives one
    digest = f"{row[1]}/{row[2]}" if row[0] else ""
    return Measure(unit=unit, item=item, count=row[0], digest=digest, origin="source")
