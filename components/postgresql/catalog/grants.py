"""Who may do what, as text that two servers can be compared by.

PostgreSQL keeps no list of grants until they are changed, and a restore leaves it so even if the source has
a list with the same meaning: a right was granted once, and revoked. So a list counts only if it is
another one than the built-in defaults of its owner, and what is in it is sorted.
https://www.postgresql.org/docs/18/ddl-priv.html
"""

from __future__ import annotations

from components.postgresql.catalog.settings import LISTS
from components.postgresql.client import SCHEMA

# Not the server's own schemas, not other sessions' temporary ones, and not the one that backups leave out.
OWN = (
    "n.nspname NOT IN ('pg_catalog', 'information_schema', '"
    + SCHEMA
    + "') AND n.nspname NOT LIKE 'pg\\_toast%' AND n.nspname NOT LIKE 'pg\\_temp\\_%'"
)
# The fence of a live restore sets that, and takes it away; a backup that is taken behind a fence must not hold it.
FENCE = "default_transaction_read_only"
MARKS = "isa."  # of a database that a restore puts aside or makes: components.postgresql.replacement.aside
CONNECTIONS = (
    "isa.connections"  # of a database that is closed: how many it took before; -1 is any number
)


# Comments and settings of roles and databases have the encoding of the database in which they were set, and are read in
# another one. The pattern is of a text in hexadecimal: Table 3-7 of the Unicode standard.
UTF8 = (
    "^([0-7].|(c[2-9a-f]|d.)[89ab].|e0[ab].[89ab].|e[1-9abcef][89ab].[89ab].|ed[89].[89ab].|"
    "f0[9ab].[89ab].[89ab].|f[123][89ab].[89ab].[89ab].|f48.[89ab].[89ab].)*$"
)


def readable(text: str) -> str:
    """SQL for whether a text of a shared catalogue is UTF-8; other encodings have a character for each byte."""
    as_it_lies = f"replace({text}, '\\', '\\\\')::bytea"
    return f"(getdatabaseencoding() NOT IN ('UTF8', 'SQL_ASCII') OR encode({as_it_lies}, 'hex') ~ '{UTF8}')"


def readable_or_null(text: str) -> str:
    """SQL for a text, or NULL where it is no UTF-8."""
    return f"CASE WHEN {readable(text)} THEN {text} END"


def as_list(setting: str) -> str:
    """SQL for a setting `name=value` with a list as a restore writes it: parts may have come without a space."""
    names = ", ".join(f"'{name}'" for name in sorted(LISTS))
    return f"""CASE WHEN split_part({setting}, '=', 1) IN ({names})
                    THEN regexp_replace({setting}, '\\s*,\\s*', ', ', 'g') ELSE {setting} END"""


def _text(acl: str) -> str:
    """SQL for a list of rights as text; a right looks like `reader=r/owner`."""
    items = f"""(SELECT string_agg(item::text, ' ' ORDER BY item::text COLLATE "C") FROM unnest({acl}) item)"""
    return f"coalesce({items}, 'nobody')"


def _granted(name: str, acl: str, usual: str, source: str) -> str:
    """SQL for name and rights of everything whose rights are not the usual ones.

    Args:
        name: SQL of its name.
        acl: its list of grants, NULL if they were never changed.
        usual: the built-in ones.
        source: FROM and WHERE.
    """
    return f"""
        SELECT name, format('%s %s', name, acl) AS t
        FROM (SELECT {name} AS name, {_text(f"coalesce({acl}, {usual})")} AS acl, {_text(usual)} AS usual
              FROM {source}) AS rights
        WHERE acl <> usual"""


DATABASE = f"""
    SELECT name, format('%s %s', name, t) AS t
    FROM pg_database d CROSS JOIN LATERAL (
        SELECT 'owner' AS name, pg_get_userbyid(d.datdba)::text AS t
        UNION ALL SELECT 'comment', {readable_or_null("shobj_description(d.oid, 'pg_database')")}
        UNION ALL SELECT 'grants', nullif({_text("coalesce(d.datacl, acldefault('d', d.datdba))")},
                                          {_text("acldefault('d', d.datdba)")})
        UNION ALL SELECT concat_ws(' of ', 'setting ' || split_part(setting, '=', 1),
                                   nullif(s.setrole, 0)::regrole::text), {as_list("setting")}
        FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) AS setting
        WHERE s.setdatabase = d.oid AND {readable("setting")}
          AND NOT (s.setrole = 0 AND (setting LIKE '{FENCE}=%' OR setting LIKE '{MARKS}%'))
    ) AS properties
    WHERE d.datname = current_database() AND t IS NOT NULL"""

# Item of a fingerprint → a query that gives name and text of each.
GRANTS: dict[str, str] = {
    "database": DATABASE,
    "grants on schemas": _granted(
        "format('%I', n.nspname)",
        "n.nspacl",
        "acldefault('n', n.nspowner)",
        f"pg_namespace n WHERE {OWN}",
    ),
    "grants on relations": _granted(
        "format('%I.%I', n.nspname, c.relname)",
        "c.relacl",
        """acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner)""",
        "pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        f"WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't' AND {OWN}",
    ),
    "grants on columns": _granted(
        "format('%I.%I.%I', n.nspname, c.relname, a.attname)",
        "a.attacl",
        "acldefault('c', c.relowner)",
        "pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
        f"WHERE NOT a.attisdropped AND a.attacl IS NOT NULL AND c.relpersistence <> 't' AND {OWN}",
    ),
    "grants on functions": _granted(
        "p.oid::regprocedure::text",
        "p.proacl",
        "acldefault('f', p.proowner)",
        f"pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {OWN}",
    ),
    # a table's row type and an array's type have no rights of their own
    "grants on types": _granted(
        "t.oid::regtype::text",
        "t.typacl",
        "acldefault('T', t.typowner)",
        "pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid "
        "WHERE (c.relkind IS NULL OR c.relkind = 'c') "
        f"AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid) AND {OWN}",
    ),
    # of the built-in ones no dump keeps any
    "grants on languages": _granted(
        "format('%I', lanname)", "lanacl", "acldefault('l', lanowner)", "pg_language WHERE lanispl"
    ),
    "grants on foreign data wrappers": _granted(
        "format('%I', fdwname)", "fdwacl", "acldefault('F', fdwowner)", "pg_foreign_data_wrapper"
    ),
    "grants on foreign servers": _granted(
        "format('%I', srvname)", "srvacl", "acldefault('S', srvowner)", "pg_foreign_server"
    ),
    "grants on large objects": _granted(
        "oid::text", "lomacl", "acldefault('L', lomowner)", "pg_largeobject_metadata"
    ),
    "default privileges": f"""
        SELECT name, format('%s %s', name, acl) AS t
        FROM (SELECT concat_ws(' ', defaclrole::regrole::text, defaclobjtype, 'in ' || quote_ident(n.nspname)) AS name,
                     {_text("defaclacl")} AS acl
              FROM pg_default_acl LEFT JOIN pg_namespace n ON n.oid = defaclnamespace
              WHERE n.oid IS NULL OR {OWN}) AS rights""",
}
