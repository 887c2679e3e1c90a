"""What is asked of a database and of a server for a fingerprint: item → a query that gives name and text of each thing.

A backup is compared by the items that its own fingerprint names, so what an item means never changes: a better question
is a new item, and the old one is kept for older backups.
"""

from __future__ import annotations

from components.postgresql.catalog.grants import (
    CONNECTIONS,
    GRANTS,
    OWN,
    as_list,
    readable,
    readable_or_null,
)
from components.postgresql.client import SCHEMA

# CREATE INDEX CONCURRENTLY that failed, or is under way, leaves one that is not valid, and a dump leaves it out.
VALID = "(c.relkind <> 'i' OR EXISTS (SELECT FROM pg_index x WHERE x.indexrelid = c.oid AND x.indisvalid))"
INVALID = f"""
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE {OWN} AND c.relkind = 'i' AND NOT {VALID} ORDER BY 1
"""
# Hashed by the server.
CATALOGUES: dict[str, str] = {
    "relations": f"""
        SELECT format('%I.%I', n.nspname, c.relname) AS name,
               format('%s %I.%I %s', c.relkind, n.nspname, c.relname, pg_get_userbyid(c.relowner)) AS t
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {OWN} AND c.relpersistence <> 't' AND {VALID}""",
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
# Whose text PostgreSQL makes of what it has parsed: other words after a restore, and hashed as `expressions.canonical`.
DEFINITIONS: dict[str, str] = {
    "column definitions": f"""
        SELECT format('%I.%I.%I', n.nspname, c.relname, a.attname) AS name,
               format('%I.%I.%I %s %s %s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                      a.attnotnull, pg_get_expr(d.adbin, d.adrelid)) AS t
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {OWN}""",
    "constraint definitions": f"""
        SELECT format('%I on %s', conname, conrelid::regclass) AS name,
               format('%I %s %s', n.nspname, conname, pg_get_constraintdef(k.oid)) AS t
        FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace WHERE {OWN} AND k.contype <> 'n'""",
    "index definitions": f"""
        SELECT format('%I.%I', n.nspname, c.relname) AS name, pg_get_indexdef(c.oid) AS t
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('i', 'I') AND {OWN} AND {VALID}""",
    "view definitions": f"""
        SELECT format('%I.%I', n.nspname, c.relname) AS name,
               format('%I.%I %s', n.nspname, c.relname, pg_get_viewdef(c.oid)) AS t
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('v', 'm') AND {OWN}""",
    "function definitions": f"""
        SELECT p.oid::regprocedure::text AS name,
               format('%s %s', pg_get_functiondef(p.oid), pg_get_userbyid(p.proowner)) AS t
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.prokind IN ('f', 'p') AND {OWN}""",
    "trigger definitions": f"""
        SELECT format('%I on %s', tgname, tgrelid::regclass) AS name, pg_get_triggerdef(g.oid) AS t
        FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT g.tgisinternal AND {OWN}""",
    "policy definitions": """
        SELECT format('%I on %I.%I', policyname, schemaname, tablename) AS name,
               format('%I on %I.%I %s %s %s (%s) (%s)', policyname, schemaname, tablename, permissive,
                      ARRAY(SELECT unnest(roles) ORDER BY 1), cmd, qual, with_check) AS t
        FROM pg_policies""",
    "properties of the database": f"""
        SELECT name, format('%s %s', name, t) AS t
        FROM pg_database d CROSS JOIN LATERAL (
            SELECT 'connection limit' AS name,
                   coalesce((SELECT split_part(setting, '=', 2) FROM pg_db_role_setting s, unnest(setconfig) AS setting
                             WHERE setdatabase = d.oid AND setrole = 0 AND setting LIKE '{CONNECTIONS}=%'),
                            datconnlimit::text) AS t
            UNION ALL SELECT 'template', datistemplate::text
            UNION ALL SELECT 'encoding', pg_encoding_to_char(encoding)
            UNION ALL SELECT 'collation', concat_ws(' ', datcollate, datctype)
        ) AS properties
        WHERE d.datname = current_database()""",
}
# As sets had them before an expression had one text; before grants were items of their own, when a list that says the
# defaults was not the same as none; and before large objects of more than 1 GiB could be measured.
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
    "columns": DEFINITIONS["column definitions"],
    "constraints": DEFINITIONS["constraint definitions"],
    "indexes": f"""
        SELECT format('%I.%I', n.nspname, c.relname) AS name, pg_get_indexdef(c.oid) AS t
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('i', 'I') AND {OWN}""",
    "views": DEFINITIONS["view definitions"],
    "functions and owners": DEFINITIONS["function definitions"],
    "triggers": DEFINITIONS["trigger definitions"],
    "policies": """
        SELECT format('%I on %I.%I', policyname, schemaname, tablename) AS name, policies::text AS t
        FROM pg_policies AS policies""",
}
# Of a server as a whole: item → a query that gives name and text of each. `{only}` says which roles count.
GLOBALS: dict[str, str] = {
    "role attributes": f"""
        SELECT rolname AS name,
               format('%s %s %s %s %s %s %s %s %s %s %s', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb,
                      rolcanlogin, rolreplication, rolbypassrls, rolconnlimit,
                      coalesce(rolvaliduntil, 'infinity'),
                      {readable_or_null("shobj_description(a.oid, 'pg_authid')")}) AS t
        FROM pg_authid a WHERE rolname !~ '^pg_' AND {{only}}""",
    "memberships": """
        SELECT format('%I in %I', r.rolname, g.rolname) AS name,
               format('%s in %s %s', r.rolname, g.rolname, string_agg(options, ',' ORDER BY options)) AS t
        FROM pg_auth_members m JOIN pg_authid r ON r.oid = m.member JOIN pg_authid g ON g.oid = m.roleid
        CROSS JOIN concat_ws(' ', admin_option, to_jsonb(m) ->> 'inherit_option', to_jsonb(m) ->> 'set_option') options
        WHERE r.rolname !~ '^pg_' AND r.rolname = ANY ({names})
          AND (g.rolname ~ '^pg_' OR g.rolname = ANY ({names})) GROUP BY r.rolname, g.rolname""",
    "settings of roles": f"""
        SELECT format('%s of %s', split_part(setting, '=', 1), coalesce(rolname, 'all')) AS name,
               format('%s of %s', {as_list("setting")}, coalesce(rolname, 'all')) AS t
        FROM pg_db_role_setting s CROSS JOIN unnest(setconfig) AS setting LEFT JOIN pg_authid a ON a.oid = s.setrole
        WHERE s.setdatabase = 0 AND (setrole = 0 OR {{only}}) AND {readable("setting")}""",
}
SYSTEM_ITEM = "settings of ALTER SYSTEM"
# As sets had it before a role was measured with all that it is.
EARLIER_GLOBALS = {
    "roles": """
        SELECT rolname AS name,
               format('%s %s %s %s %s %s %s %s', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb,
                      rolcanlogin, rolreplication, (SELECT array_agg(b.rolname ORDER BY b.rolname)
                                                    FROM pg_auth_members m JOIN pg_roles b ON b.oid = m.roleid
                                                    WHERE m.member = a.oid)) AS t
        FROM pg_authid a WHERE rolname NOT LIKE 'pg\\_%' AND {only}""",
}
