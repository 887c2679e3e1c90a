"""Measures the rows of tables so that no code of a table's owner runs with our rights.

To plan any query on a table, the server evaluates what is constant in the expressions of its indexes and statistics
(`eval_const_expressions` in `RelationGetIndexExpressions`, src/backend/utils/cache/relcache.c, and in
`get_relation_statistics`, src/backend/optimizer/util/plancat.c): a function of the owner's that he calls immutable.
COPY of a table plans nothing. So rows are hashed by the server only where no such expression calls code of a role that
is no superuser, and if no session can add one in between; all others are copied, and hashed here, without the columns
that are generated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby
from typing import Any

import psycopg
from psycopg import sql

from archive.backup.manifest import Measure
from cluster.command import CANCELLATION
from components.digest import Digest
from components.postgresql.client import SCHEMA
from components.postgresql.connection.failures import passing

CANCEL_SECONDS = 5.0  # the request to end a query is a connection of its own
OLDER = "columns"  # an item of backups whose rows were measured in the order of their columns
# Their text; `format` asks the type's output function, where a cast may be a user's own.
WHOLE_ROW = sql.SQL("format('%s', row_of_table.*)")
DIGEST = """
    SELECT count(*), coalesce(sum(h), 0)::text, coalesce(bit_xor(h), 0)::text
    FROM (SELECT hashtextextended({text}, 0) AS h FROM {source}) AS hashes
"""
# Whether planning a query on table `c` may call code of a role that is no superuser. The server's own functions are
# pinned, so that no dependency on them is recorded. The owner of an extension may add functions to it, so
# that membership says nothing.
PLANS_CODE = """EXISTS (
    SELECT FROM (SELECT 'pg_class'::regclass AS classid, indexrelid AS objid FROM pg_index WHERE indrelid = c.oid
                 UNION ALL SELECT 'pg_statistic_ext'::regclass, oid FROM pg_statistic_ext WHERE stxrelid = c.oid
    ) AS planned JOIN pg_depend d USING (classid, objid)
    LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
    LEFT JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid OR p.oid = o.oprcode
    LEFT JOIN pg_type t ON d.refclassid = 'pg_type'::regclass AND t.oid = d.refobjid
    JOIN pg_authid r ON r.oid IN (o.oprowner, p.proowner, t.typowner) WHERE NOT r.rolsuper)"""
STILL_PLANS = f"SELECT {PLANS_CODE} FROM pg_class c WHERE oid = %s"
# Hash partitions of these lie by numbers that a restore assigns again (enums, also in arrays and records; of what
# `regclass` and its like name), by a library's version, or by a hash function of a user's own.
MOVING = """
    SELECT partrelid FROM pg_partitioned_table p WHERE partstrat = 'h' AND (
        EXISTS (SELECT FROM unnest(p.partclass) AS class JOIN pg_opclass o ON o.oid = class
                WHERE o.opcnamespace <> 'pg_catalog'::regnamespace OR o.opcintype::regtype::text IN
                      ('anyenum', 'anyarray', 'anyrange', 'anymultirange', 'record', 'oid'))
        OR EXISTS (SELECT FROM unnest(p.partcollation) AS coll JOIN pg_collation l ON l.oid = coll
                   WHERE NOT l.collisdeterministic))"""
# A materialized view has what its last refresh found, and a table of an extension's own what its script puts there; a
# dump carries neither. Columns in the order of their names: one that was added to a parent later stands elsewhere after
# a restore.
TABLES = f"""
    SELECT c.oid::bigint, n.nspname AS schema, c.relname AS name, c.relkind = 'm' OR EXISTS (
        SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_extension'::regclass
          AND d.deptype = 'e' AND c.oid <> ALL (coalesce(e.extconfig, '{{}}'))) AS made_anew,
        coalesce(k.columns, '{{}}'), coalesce(k.written, '{{}}'), coalesce(k.computed, false), {PLANS_CODE},
        (SELECT format('%%s.%%s', rn.nspname, root.relname)
         FROM pg_partition_ancestors(c.oid) WITH ORDINALITY AS above (relid, level)
         JOIN pg_class root ON root.oid = above.relid JOIN pg_namespace rn ON rn.oid = root.relnamespace
         WHERE above.relid IN ({MOVING}) ORDER BY level DESC LIMIT 1) AS moves_within
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN LATERAL (
        SELECT array_agg(attname::text ORDER BY attname::text COLLATE "C") AS columns,
               array_agg(attname::text ORDER BY attname::text COLLATE "C") FILTER (WHERE attgenerated = '') AS written,
               bool_or(attgenerated = 'v') AS computed
        FROM pg_attribute a WHERE a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped) AS k ON true
    WHERE (c.relkind = 'r' OR c.relkind = 'm' AND c.relispopulated) AND c.relpersistence = 'p'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', %s) AND n.nspname NOT LIKE 'pg\\_toast%%'
    ORDER BY 9 NULLS FIRST, 2, 3
"""
HASHED, COPIED, UNMEASURED = "table", "rows of", "unmeasured table"  # items; the name follows


@dataclass(frozen=True)
class Table:
    """A table that has rows.

    Attributes:
        oid: of it.
        schema: of it.
        name: of it.
        made_anew: whether a dump leaves its rows out.
        columns: names, sorted.
        written: those that are not generated.
        computed: whether some are computed when they are read (VIRTUAL): data of none, and each may fail.
        plans_code: whether planning a query on it may run code of its owner.
        moves_within: the partitioned table, `schema.name`, among whose partitions a restore may spread rows otherwise.
    """

    oid: int
    schema: str
    name: str
    made_anew: bool
    columns: list[str]
    written: list[str]
    computed: bool
    plans_code: bool
    moves_within: str | None

    @property
    def label(self) -> str:
        """As items name it."""
        return f"{self.schema}.{self.name}"

    @property
    def relation(self) -> sql.Identifier:
        """As SQL."""
        return sql.Identifier(self.schema, self.name)


def measure_source(
    connection: psycopg.Connection[Any],
    unit: str,
    *,
    still: bool,
    failed: Callable[[str, str], None],
    dropped: Callable[[str], None],
) -> Iterator[Measure]:
    """Measure all tables of a database that is backed up.

    Args:
        connection: to it, in a transaction, on the snapshot that counts.
        unit: that measures are of.
        still: whether no session can change a table now (a standby whose replay is paused).
        failed: gets the name of a table whose rows cannot be read, and why; it costs no other.
        dropped: gets the name of a table that was dropped since.

    Raises:
        psycopg.Error: another attempt may heal it.
    """
    for label, tables in _groups(table for table in _tables(connection) if not table.made_anew):
        first = tables[0]
        try:
            with connection.transaction():
                if still and not (first.moves_within or first.plans_code or first.computed):
                    yield _hash(connection, unit, label, first, _by_name(first.columns))
                else:
                    yield _copy(connection, unit, label, tables)
        except psycopg.errors.UndefinedTable:
            dropped(label)
        except psycopg.Error as exc:
            if passing(exc):
                raise
            failed(label, f"SQLSTATE {exc.sqlstate}")
            yield Measure(unit=unit, item=f"{UNMEASURED} {label}", count=0, origin="source")


def measure_restored(
    connection: psycopg.Connection[Any], unit: str, items: Collection[str], *, still: bool
) -> Iterator[Measure]:
    """Measure the tables of a database that was restored, as the backup's source was measured.

    Args:
        connection: to it.
        unit: that measures are of.
        items: that the backup knows of it.
        still: whether no other session can change a table now.
    """
    for label, tables in _groups(_tables(connection)):
        if f"{COPIED} {label}" in items:
            yield _copy(connection, unit, label, tables)
            continue
        for table in tables:  # of an older backup each partition by itself
            hashed = f"{HASHED} {table.label}" in items
            if hashed:
                yield _hash_safely(connection, unit, table, items, still=still)
            elif not table.made_anew and f"{UNMEASURED} {label}" not in items:
                yield _copy(connection, unit, table.label, [table])  # there is one too many


# ---------------------------------------------------------------------- inside
def _tables(connection: psycopg.Connection[Any]) -> list[Table]:
    return [Table(*row) for row in connection.execute(TABLES, [SCHEMA]).fetchall()]


def _groups(tables: Iterable[Table]) -> Iterator[tuple[str, list[Table]]]:
    """Tables that are measured as one, with the name of their item."""
    for label, found in groupby(tables, key=lambda one: one.moves_within or one.label):
        yield label, list(found)


def _hash(
    connection: psycopg.Connection[Any], unit: str, label: str, table: Table, text: sql.Composable
) -> Measure:
    """Measure rows by the server's own hash, which plans a query on the table."""
    source = sql.SQL("ONLY {} AS row_of_table").format(table.relation)
    return hashed(connection, unit, f"{HASHED} {label}", source, text)


def _hash_safely(
    connection: psycopg.Connection[Any],
    unit: str,
    table: Table,
    items: Collection[str],
    *,
    still: bool,
) -> Measure:
    """The same, while no session can add an expression; only the number of rows if there is one.

    The latter is of a backup from before it was known what planning runs.
    """
    text = WHOLE_ROW if OLDER in items else _by_name(table.columns)
    with connection.transaction():
        if not (still or table.made_anew):
            # conflicts with CREATE INDEX [CONCURRENTLY] and CREATE STATISTICS
            lock = sql.SQL("LOCK TABLE ONLY {} IN SHARE UPDATE EXCLUSIVE MODE")
            connection.execute(lock.format(table.relation))
        if connection.execute(STILL_PLANS, [table.oid]).fetchone() == (False,):
            return _hash(connection, unit, table.label, table, text)
    copied = _copy(connection, unit, table.label, [table])
    item = f"{HASHED} {table.label}"
    return copied.model_copy(update={"item": item, "until": copied.count, "digest": ""})


def _copy(
    connection: psycopg.Connection[Any], unit: str, label: str, tables: Iterable[Table]
) -> Measure:
    """Measure rows by what COPY says of them, in the database's own encoding."""
    digest = Digest()
    for table in tables:
        names = sql.SQL(", ").join(map(sql.Identifier, table.written))
        columns = sql.SQL("({})").format(names) if table.written else sql.SQL("")
        text = sql.SQL("COPY {} {} TO STDOUT (ENCODING 'SQL_ASCII')").format(
            table.relation, columns
        )
        with _cancellable(connection), connection.cursor() as cursor, cursor.copy(text) as rows:
            for row in rows:
                digest.add(int.from_bytes(blake2b(row, digest_size=16).digest()))
    return digest.measure(unit, f"{COPIED} {label}")


def hashed(
    connection: psycopg.Connection[Any],
    unit: str,
    item: str,
    source: sql.Composable,
    text: sql.Composable,
) -> Measure:
    """Count texts, and add and cross their hashes, on the server.

    Args:
        connection: to the database.
        unit: that the measure is of.
        item: that the measure is of.
        source: what is selected from.
        text: of each thing in it.
    """
    query = sql.SQL(DIGEST).format(text=text, source=source)
    with _cancellable(connection):
        row = connection.execute(query).fetchone()  # of a large table it takes long
    assert row is not None  # an aggregate always gives one
    digest = f"{row[1]}/{row[2]}" if row[0] else ""
    return Measure(unit=unit, item=item, count=row[0], digest=digest, origin="source")


def _cancellable(connection: psycopg.Connection[Any]) -> AbstractContextManager[None]:
    return CANCELLATION.ending(lambda: connection.cancel_safe(timeout=CANCEL_SECONDS))


def _by_name(columns: Iterable[str]) -> sql.Composable:
    """Text of a row, columns in the order of their names, by the types' own output, which no user's cast changes."""
    names = [sql.Identifier("row_of_table", column) for column in columns]
    return sql.SQL("ROW({})::text").format(sql.SQL(", ").join(names))
