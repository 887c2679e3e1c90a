"""Properties of databases and settings of the server, stored as data beside the dumps.

pg_restore sets a database's owner, rights, comment and settings only if it creates the database. It does not create the
databases that every server has (`postgres`, `template1`). No dump has the settings of ALTER SYSTEM and ALTER ROLE ALL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import psycopg
from psycopg import sql
from pydantic import BaseModel, ConfigDict

from archive.backup.reader import SetReader
from components.postgresql.catalog.grants import FENCE, MARKS, readable, readable_or_null
from components.postgresql.catalog.roles import Roles, read_roles
from components.postgresql.catalog.settings import set_values

FILE, FORM = "globals.json", "JSON of roles and settings"
DATABASES = f"""
    SELECT datname AS name, pg_get_userbyid(datdba) AS owner, datconnlimit AS connection_limit,
           datistemplate AS template, {readable_or_null("shobj_description(d.oid, 'pg_database')")} AS comment,
           pg_encoding_to_char(encoding)::text AS encoding, datcollate::text AS collate, datctype::text AS ctype,
           coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') AS provider,
           coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale') AS locale,
           CASE WHEN datacl IS NOT NULL THEN ARRAY(
               SELECT jsonb_build_object('grantor', pg_get_userbyid(grantor), 'privilege', privilege_type,
                                         'grantee', CASE grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(grantee) END,
                                         'grantable', is_grantable)
               FROM aclexplode(datacl)) END AS rights,
           ARRAY(SELECT jsonb_build_object('role', CASE setrole WHEN 0 THEN NULL ELSE pg_get_userbyid(setrole) END,
                                           'setting', setting)
                 FROM pg_db_role_setting s CROSS JOIN unnest(setconfig) AS setting
                 WHERE s.setdatabase = d.oid AND {readable("setting")}
                   AND NOT (setrole = 0 AND (setting LIKE '{FENCE}=%%' OR setting LIKE '{MARKS}%%'))) AS settings
    FROM pg_database d WHERE datname = ANY (%s) ORDER BY 1
"""

RIGHTS = """
    SELECT pg_get_userbyid(grantor) AS grantor, privilege_type AS privilege, is_grantable AS grantable,
           CASE grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(grantee) END AS grantee
    FROM pg_database d CROSS JOIN LATERAL aclexplode(coalesce(datacl, acldefault('d', datdba)))
    WHERE datname = %s
"""
OWNER = "SELECT pg_get_userbyid(datdba) AS owner FROM pg_database WHERE datname = %s"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Right(_Part):
    """A right on a database. Without a grantee it is granted to PUBLIC."""

    grantor: str
    grantee: str | None
    privilege: str
    grantable: bool


class Setting(_Part):
    """A setting of a database, `name=value`; with a role it applies to that role in the database."""

    role: str | None
    setting: str


class Properties(_Part):
    """Properties of a database.

    Attributes:
        name: its name.
        owner: the owning role.
        connection_limit: connection limit; -1 for none.
        template: every role with CREATEDB may copy it.
        comment: its comment.
        encoding: its encoding.
        collate: LC_COLLATE.
        ctype: LC_CTYPE.
        provider: provider of its locale: `c` for the operating system, `i` for ICU, `b` for the server itself.
        locale: its locale in ICU or the server.
        rights: its rights; None if they were never changed.
        settings: its own settings.
        tablespaces: names of the tablespaces of the database, its tables and indexes.
    """

    name: str
    owner: str
    connection_limit: int
    template: bool
    comment: str | None
    encoding: str
    collate: str
    ctype: str
    provider: str
    locale: str | None
    rights: list[Right] | None
    settings: list[Setting]
    tablespaces: list[str]


class Globals(_Part):
    """The content of the artefact.

    Attributes:
        roles: roles of the server.
        system: settings of ALTER SYSTEM on the primary, name → value.
        tablespaces: names of additional tablespaces.
        databases: the databases with dumps in the backup.
    """

    roles: Roles
    system: dict[str, str]
    tablespaces: list[str]
    databases: list[Properties]


def read_globals(
    connection: psycopg.Connection[Any],
    databases: Mapping[str, Iterable[str]],
    system: dict[str, str],
    tablespaces: Iterable[str],
) -> Globals:
    """Read roles, settings and properties of databases.

    Args:
        connection: a session with the settings of a fingerprint.
        databases: name of a dumped database → names of its tablespaces.
        system: settings of ALTER SYSTEM on the primary.
        tablespaces: names.
    """
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        rows = cursor.execute(DATABASES.encode(), [list(databases)]).fetchall()
    return Globals(
        roles=read_roles(connection),
        system=system,
        tablespaces=list(tablespaces),
        databases=[
            Properties.model_validate({**row, "tablespaces": list(databases[row["name"]])})
            for row in rows
        ],
    )


def stored_globals(reader: SetReader) -> Globals | None:
    """The artefact of a backup; None for an older backup without one.

    Raises:
        Damaged: it differs from what was stored.
    """
    names = reader.names(FORM)
    return Globals.model_validate_json(reader.read(names[0])) if names else None


def restore_properties(
    connection: psycopg.Connection[Any], name: str, properties: Properties
) -> None:
    """Restore the properties of a database that pg_restore did not create, except its connection limit.

    Args:
        connection: to another database of the server.
        name: current name of the database.
        properties: properties in the backup.
    """
    database = sql.Identifier(name)
    alter = sql.SQL("ALTER DATABASE {}").format(database)
    with connection.transaction():
        connection.execute(
            sql.SQL("{} OWNER TO {}").format(alter, sql.Identifier(properties.owner))
        )
        comment = sql.SQL("COMMENT ON DATABASE {} IS {}")
        connection.execute(comment.format(database, sql.Literal(properties.comment)))
        template = sql.SQL("{} IS_TEMPLATE {}")
        connection.execute(template.format(alter, sql.Literal(properties.template)))
        for setting in properties.settings:
            subject = alter
            if setting.role is not None:
                role = sql.SQL("ALTER ROLE {} IN DATABASE {}")
                subject = role.format(sql.Identifier(setting.role), database)
            set_values(connection, subject, [setting.setting])
        if properties.rights is not None:
            restore_rights(connection, database, properties.owner, properties.rights)


def read_rights(connection: psycopg.Connection[Any], database: str) -> tuple[list[Right], str]:
    """The rights on a database (the built-in ones if they were never changed), and its owner."""
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        rows = cursor.execute(RIGHTS.encode(), [database]).fetchall()
        owner = cursor.execute(OWNER.encode(), [database]).fetchone()
    assert owner is not None
    return [Right.model_validate(row) for row in rows], owner["owner"]


def restore_rights(
    connection: psycopg.Connection[Any], database: sql.Identifier, owner: str, rights: list[Right]
) -> None:
    """Grant rights, each by its own grantor. The owner's grants come first."""
    for grantee in (sql.SQL("PUBLIC"), sql.Identifier(owner)):
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM {}").format(database, grantee))
    for right in sorted(rights, key=lambda right: (right.grantor != owner, not right.grantable)):
        to = sql.SQL("PUBLIC") if right.grantee is None else sql.Identifier(right.grantee)
        with_option = sql.SQL(" WITH GRANT OPTION" if right.grantable else "")
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(right.grantor)))
        text = sql.SQL("GRANT {} ON DATABASE {} TO {}{}")
        connection.execute(text.format(PRIVILEGES[right.privilege], database, to, with_option))
        connection.execute("RESET ROLE")


# ---------------------------------------------------------------------- inside
PRIVILEGES = {
    "CREATE": sql.SQL("CREATE"),
    "CONNECT": sql.SQL("CONNECT"),
    "TEMPORARY": sql.SQL("TEMPORARY"),
}
