"""What a database holds, as counts and digests that do not depend on order, for a restore to be compared with.

A row counts as its text with fixed session settings, hashed with the server's own `hashtextextended`; a table as
number of rows, sum and exclusive-or of the hashes, so that two rows that change places, or one that is there twice,
are seen. Everything is asked in one transaction, on the snapshot that the dump is made of.

A set is compared by the items that its own fingerprint names: an older one knows fewer, two whose text has changed, and
rows that a dump makes anew.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import psycopg
from psycopg import sql

from archive.manifest import Measure
from cluster.command import CANCELLATION
from components.digest import NAMED
from components.postgresql.client import SCHEMA
from components.postgresql.grants import GRANTS, OWN

CANCEL_SECONDS = 5.0  # the request to end a query is a connection of its own

# Text of a value depends on these.
SESSION = (
    "extra_float_digits=1", "datestyle=ISO", "intervalstyle=postgres", "timezone=UTC",
    "bytea_output=hex", "search_path=pg_catalog", "lc_monetary=C", "xmlbinary=base64",
)  # fmt: skip
# A materialized view has what its last refresh found, and a table of an extension's own what its script puts there; a
# dump carries neither.
TABLES = """
    SELECT n.nspname, c.relname, c.relkind = 'm' OR EXISTS (
        SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_extension'::regclass
          AND d.deptype = 'e' AND c.oid <> ALL (coalesce(e.extconfig, '{}')))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE (c.relkind = 'r' OR c.relkind = 'm' AND c.relispopulated) AND c.relpersistence = 'p'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', %s) AND n.nspname NOT LIKE 'pg\\_toast%%'
    ORDER BY 1, 2
"""
DIGEST = """
    SELECT count(*), coalesce(sum(h), 0)::text, coalesce(bit_xor(h), 0)::text
    FROM (SELECT hashtextextended({text}, 0) AS h FROM {source}) AS hashes
"""
NAMES = "SELECT name, to_hex(hashtextextended(t, 0)) FROM {source}"
# Everything that is no row: item → a query that gives name and text of each.
CATALOGUES: dict[str, str] = {
    "relations": f"""
        SELECT format('%I.%I', n.nspname, c.relname) AS name,
               format('%s %I.%I %s', c.relkind, n.nspname, c.relname, pg_get_userbyid(c.relowner)) AS t
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {OWN} AND c.relpersistence <> 't'""",
    "columns": f"""
        SELECT format('%I.%I.%I', n.nspname, c.relname, a.attname) AS name,
               format('%I.%I.%I %s %s %s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                      a.attnotnull, pg_get_expr(d.adbin, d.adrelid)) AS t
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {OWN}""",
    "constraints": f"""
        SELECT format('%I on %s', conname, conrelid::regclass) AS name,
               format('%I %s %s', n.nspname, conname, pg_get_constraintdef(k.oid)) AS t
        FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace WHERE {OWN} AND k.contype <> 'n'""",
    "indexes": f"""
        SELECT format('%I.%I', n.nspname, c.relname) AS name, pg_get_indexdef(c.oid) AS t
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('i', 'I') AND {OWN}""",
    "views": f"""
        SELECT format('%I.%I', n.nspname, c.relname) AS name,
               format('%I.%I %s', n.nspname, c.relname, pg_get_viewdef(c.oid)) AS t
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('v', 'm') AND {OWN}""",
    "functions and owners": f"""
        SELECT p.oid::regprocedure::text AS name,
               format('%s %s', pg_get_functiondef(p.oid), pg_get_userbyid(p.proowner)) AS t
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.prokind IN ('f', 'p') AND {OWN}""",
    "triggers": f"""
        SELECT format('%I on %s', tgname, tgrelid::regclass) AS name, pg_get_triggerdef(g.oid) AS t
        FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT g.tgisinternal AND {OWN}""",
    "policies": """
        SELECT format('%I on %I.%I', policyname, schemaname, tablename) AS name, policies::text AS t
        FROM pg_policies AS policies""",
    "extensions": "SELECT extname AS name, extname || ' ' || extversion AS t FROM pg_extension",
    "sequences": f"""
        SELECT format('%I.%I', schemaname, sequencename) AS name,
               format('%I.%I %s', schemaname, sequencename, last_value) AS t
        FROM pg_sequences WHERE schemaname <> '{SCHEMA}'""",
    # page by page, for a value has 1 GiB at most; without zeros at a page's end, for a dump writes those of gaps too
    "contents of large objects": """
        SELECT m.oid::text AS name,
               format('%s %s %s %s', m.oid, pg_get_userbyid(m.lomowner),
                      (SELECT max(l.pageno::bigint * (current_setting('block_size')::int / 4) + length(l.data))
                       FROM pg_largeobject l WHERE l.loid = m.oid),
                      (SELECT sum(hashtextextended(format('%s %s', l.pageno, rtrim(l.data, '\\x00'::bytea)), 0))
                       FROM pg_largeobject l WHERE l.loid = m.oid AND rtrim(l.data, '\\x00'::bytea) <> ''::bytea)) AS t
        FROM pg_largeobject_metadata m""",
    **GRANTS,
}
# As sets had them before grants were items of their own, when a list that says the defaults was not the same as none,
# and before large objects of more than 1 GiB could be measured.
EARLIER: dict[str, str] = {
    "relations and owners": f"""
        SELECT format('%I.%I', n.nspname, c.relname) AS name,
               format('%s %I.%I %s %s', c.relkind, n.nspname, c.relname, pg_get_userbyid(c.relowner),
                      (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(c.relacl) a)) AS t
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {OWN} AND c.relpersistence <> 't'""",
    "functions": f"""
        SELECT p.oid::regprocedure::text AS name, pg_get_functiondef(p.oid) || coalesce(p.proacl::text, '') AS t
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.prokind IN ('f', 'p') AND {OWN}""",
    "large objects": """
        SELECT m.oid::text AS name, m.oid || ' ' || pg_get_userbyid(m.lomowner) || ' ' || md5(lo_get(m.oid)) AS t
        FROM pg_largeobject_metadata m""",
}
ROLES = """
    SELECT rolname AS name,
           format('%s %s %s %s %s %s %s %s', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin,
                  rolreplication, (SELECT array_agg(b.rolname ORDER BY b.rolname) FROM pg_auth_members m
                                   JOIN pg_roles b ON b.oid = m.roleid WHERE m.member = r.oid)) AS t
    FROM pg_roles r WHERE rolname NOT LIKE 'pg\\_%'
"""


def items_of(fingerprint: Collection[Measure], database: str) -> set[str]:
    """What a set's fingerprint knows of a database."""
    return {one.item for one in fingerprint if one.unit == f"database {database}"}


def measure_database(
    connection: psycopg.Connection[Any], database: str, items: Collection[str] = tuple(CATALOGUES)
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
    for schema, table, made_anew in connection.execute(TABLES, [SCHEMA]).fetchall():
        if made_anew and f"table {schema}.{table}" not in items:
            continue
        source = sql.SQL("ONLY {} AS row_of_table").format(sql.Identifier(schema, table))
        text = sql.SQL("(row_of_table.*)::text")
        found.append(_measure(connection, unit, f"table {schema}.{table}", source, text))
    for item, rows in {**CATALOGUES, **EARLIER}.items():
        if item in items:
            found.append(_defined(connection, unit, item, rows))
    return found


def measure_roles(connection: psycopg.Connection[Any]) -> Measure:
    """Measure the roles of the whole database cluster; passwords are left out."""
    return _defined(connection, "globals", "roles", ROLES)


def _defined(connection: psycopg.Connection[Any], unit: str, item: str, rows: str) -> Measure:
    """Measure definitions, with their names where they are few."""
    source = sql.SQL("({}) AS rows").format(sql.SQL(rows))
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
