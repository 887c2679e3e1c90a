"""What a database is as a whole, and what is set for the server: beside the dumps, as data.

A dump carries a database's owner, rights, comment and settings only into a database that pg_restore makes. Those that
every server has (`postgres`, `template1`) are not made, and what ALTER SYSTEM and ALTER ROLE ALL set is in no dump.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import psycopg
from psycopg import sql
from pydantic import BaseModel, ConfigDict

from archive.reader import SetReader
from components.postgresql.grants import FENCE, MARKS, readable, readable_or_null
from components.postgresql.roles import Roles, read_roles
from components.postgresql.settings import set_values

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
    """One right to a database; granted to everybody where there is no grantee."""

    grantor: str
    grantee: str | None
    privilege: str
    grantable: bool


class Setting(_Part):
    """One setting of a database, `name=value`; of one role in it where there is a role."""

    role: str | None
    setting: str


class Properties(_Part):
    """A database as a whole.

    Attributes:
        name: of the database.
        owner: role.
        connection_limit: sessions that it takes; -1 is any number.
        template: whether everybody with CREATEDB may copy it.
        comment: on it.
        encoding: of its texts.
        collate: order of texts, as the operating system calls it.
        ctype: kinds of letters, likewise.
        provider: of its locale: `c` is the operating system, `i` ICU, `b` the server itself.
        locale: as ICU or the server call it.
        rights: None if they were never changed.
        settings: its own.
        tablespaces: names of those that it, its tables and indexes lie in.
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
    """The artefact.

    Attributes:
        roles: of the server.
        system: settings of ALTER SYSTEM on the primary, name → value.
        tablespaces: names of those beyond the two that always are.
        databases: those that the backup has dumps of.
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
    """Read what a server has beside its databases' contents.

    Args:
        connection: with the settings of a fingerprint.
        databases: those that are dumped → names of the tablespaces that they use.
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
    """The artefact of a backup; None of one from before there was any.

    Raises:
        Damaged: it is not what was stored.
    """
    names = reader.names(FORM)
    return Globals.model_validate_json(reader.read(names[0])) if names else None


def restore_properties(connection: psycopg.Connection[Any], name: str, wanted: Properties) -> None:
    """Make a database that was not made by pg_restore what it was as a whole, but for its connection limit.

    Args:
        connection: to another database of the server.
        name: of the database now.
        wanted: what it was.
    """
    database = sql.Identifier(name)
    alter = sql.SQL("ALTER DATABASE {}").format(database)
    with connection.transaction():
        connection.execute(sql.SQL("{} OWNER TO {}").format(alter, sql.Identifier(wanted.owner)))
        comment = sql.SQL("COMMENT ON DATABASE {} IS {}")
        connection.execute(comment.format(database, sql.Literal(wanted.comment)))
        template = sql.SQL("{} IS_TEMPLATE {}")
        connection.execute(template.format(alter, sql.Literal(wanted.template)))
        for setting in wanted.settings:
            subject = alter
            if setting.role is not None:
                role = sql.SQL("ALTER ROLE {} IN DATABASE {}")
                subject = role.format(sql.Identifier(setting.role), database)
            set_values(connection, subject, [setting.setting])
        if wanted.rights is not None:
            restore_rights(connection, database, wanted.owner, wanted.rights)


def read_rights(connection: psycopg.Connection[Any], database: str) -> tuple[list[Right], str]:
    """Grants on a database, the built-in ones if they were never changed; and its owner."""
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        rows = cursor.execute(RIGHTS.encode(), [database]).fetchall()
        owner = cursor.execute(OWNER.encode(), [database]).fetchone()
    assert owner is not None
    return [Right.model_validate(row) for row in rows], owner["owner"]


def restore_rights(
    connection: psycopg.Connection[Any], database: sql.Identifier, owner: str, rights: list[Right]
) -> None:
    """Grant what was granted, each right by its own grantor: the owner's grants come first."""
    for grantee in (sql.SQL("PUBLIC"), sql.Identifier(owner)):
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM {}").format(database, grantee))
    for one in sorted(rights, key=lambda right: (right.grantor != owner, not right.grantable)):
        to = sql.SQL("PUBLIC") if one.grantee is None else sql.Identifier(one.grantee)
        with_option = sql.SQL(" WITH GRANT OPTION" if one.grantable else "")
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(one.grantor)))
        text = sql.SQL("GRANT {} ON DATABASE {} TO {}{}")
        connection.execute(text.format(PRIVILEGES[one.privilege], database, to, with_option))
        connection.execute("RESET ROLE")


# ---------------------------------------------------------------------- inside
PRIVILEGES = {
    "CREATE": sql.SQL("CREATE"),
    "CONNECT": sql.SQL("CONNECT"),
    "TEMPORARY": sql.SQL("TEMPORARY"),
}
