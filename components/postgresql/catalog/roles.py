"""Reads roles as data and creates them. The client library quotes every name and value.

The SQL text of pg_dumpall cannot be split into lines: a setting may contain a newline and another statement. A backup
has that text too, for a restore by hand. https://www.postgresql.org/docs/18/catalog-pg-authid.html,
https://www.postgresql.org/docs/18/catalog-pg-auth-members.html
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import psycopg
from psycopg import sql
from pydantic import BaseModel, ConfigDict

from components.postgresql.catalog.grants import readable, readable_or_null
from components.postgresql.catalog.settings import set_values

# pg_ is reserved for the server's own roles, which cannot be created or dropped.
ROLES = f"""
    SELECT a.rolname AS name, rolsuper AS superuser, rolinherit AS inherit, rolcreaterole AS createrole,
           rolcreatedb AS createdb, rolcanlogin AS login, rolreplication AS replication, rolbypassrls AS bypassrls,
           rolconnlimit AS connection_limit, rolpassword AS password, rolvaliduntil::text AS valid_until,
           {readable_or_null("shobj_description(a.oid, 'pg_authid')")} AS comment,
           ARRAY(SELECT setting FROM unnest(s.setconfig) AS setting WHERE {readable("setting")}) AS settings
    FROM pg_authid a LEFT JOIN pg_db_role_setting s ON s.setrole = a.oid AND s.setdatabase = 0
    WHERE rolname !~ '^pg_' ORDER BY 1
"""
# inherit_option and set_option are columns since PostgreSQL 16.
MEMBERSHIPS = """
    SELECT r.rolname AS role, m.rolname AS member, g.rolname AS grantor, admin_option AS admin,
           (to_jsonb(a) ->> 'inherit_option')::bool AS inherit, (to_jsonb(a) ->> 'set_option')::bool AS set
    FROM pg_auth_members a JOIN pg_authid r ON r.oid = a.roleid JOIN pg_authid m ON m.oid = a.member
    LEFT JOIN pg_authid g ON g.oid = a.grantor
    WHERE m.rolname !~ '^pg_' ORDER BY 1, 2, 3
"""
# Owners, grantees, roles of policies and of default privileges, and roles with settings there.
NEEDED = """
    SELECT d.datname, array_agg(DISTINCT a.rolname::text ORDER BY a.rolname::text)
    FROM pg_database d CROSS JOIN LATERAL (
        SELECT d.datdba AS oid
        UNION SELECT refobjid FROM pg_shdepend
              WHERE refclassid = 'pg_authid'::regclass
                AND (dbid = d.oid OR classid = 'pg_database'::regclass AND objid = d.oid)
        UNION SELECT setrole FROM pg_db_role_setting WHERE setdatabase = d.oid
    ) AS referred JOIN pg_authid a ON a.oid = referred.oid
    WHERE a.rolname !~ '^pg_' GROUP BY 1
"""
EVERYBODY = f"""
    SELECT setting FROM pg_db_role_setting, unnest(setconfig) AS setting
    WHERE setrole = 0 AND setdatabase = 0 AND {readable("setting")}
"""
# Values that were set from a database with another encoding. Another server would refuse them.
UNREADABLE = f"""
    SELECT format('setting %s of %s', split_part(setting, '=', 1), coalesce('role ' || rolname, 'all roles'))
    FROM pg_db_role_setting s CROSS JOIN unnest(setconfig) AS setting LEFT JOIN pg_authid a ON a.oid = s.setrole
    WHERE s.setdatabase = 0 AND NOT {readable("setting")}
    UNION ALL SELECT format('comment on role %s', rolname) FROM pg_authid a
    WHERE NOT {readable("shobj_description(a.oid, 'pg_authid')")}
    UNION ALL SELECT format('comment on database %s', datname) FROM pg_database d
    WHERE datname IN ('postgres', 'template1') AND NOT {readable("shobj_description(d.oid, 'pg_database')")}
    ORDER BY 1
"""
FLAGS = ("superuser", "inherit", "createrole", "createdb", "login", "replication", "bypassrls")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Role(_Part):
    """A role, with the attribute names of CREATE ROLE."""

    name: str
    superuser: bool
    inherit: bool
    createrole: bool
    createdb: bool
    login: bool
    replication: bool
    bypassrls: bool
    connection_limit: int
    password: str | None
    valid_until: str | None
    comment: str | None
    settings: list[str]


class Membership(_Part):
    """A grant of one role to another, with its grantor and options. An option that the server lacks is None."""

    role: str
    member: str
    grantor: str | None
    admin: bool
    inherit: bool | None
    set: bool | None


class Roles(_Part):
    """All roles of a server.

    Attributes:
        roles: all roles but the server's own.
        memberships: their memberships.
        everybody: settings of ALTER ROLE ALL.
        needed: database → roles that own something in it, or have rights or settings there.
    """

    roles: list[Role]
    memberships: list[Membership]
    everybody: list[str]
    needed: dict[str, list[str]]

    @property
    def names(self) -> list[str]:
        """Names of all roles."""
        return [role.name for role in self.roles]

    def for_databases(self, databases: Iterable[str]) -> set[str]:
        """Roles that databases need, and the roles that these are members of."""
        names = {name for database in databases for name in self.needed.get(database, ())}
        while True:
            parents = {m.role for m in self.memberships if m.member in names} & set(self.names)
            if parents <= names:
                return names
            names |= parents


def read_roles(connection: psycopg.Connection[Any]) -> Roles:
    """Read all roles, as the superuser, in a session with the settings of a fingerprint (times in UTC)."""
    everybody = connection.execute(EVERYBODY.encode()).fetchall()
    needed = connection.execute(NEEDED).fetchall()
    return Roles(
        roles=[Role(**row) for row in _rows(connection, ROLES)],
        memberships=[Membership(**row) for row in _rows(connection, MEMBERSHIPS)],
        everybody=[setting for (setting,) in everybody],
        needed=dict(needed),
    )


def read_unreadable(connection: psycopg.Connection[Any]) -> list[str]:
    """Settings and comments of roles that are not UTF-8; they are left out."""
    return [text for (text,) in connection.execute(UNREADABLE.encode()).fetchall()]


def create_missing(
    connection: psycopg.Connection[Any], backup: Roles, required: Collection[str]
) -> list[str]:
    """Create missing roles with all their attributes. Existing roles are not changed.

    Args:
        connection: to the primary.
        backup: the roles of the backup.
        required: names of the roles that are needed.

    Returns:
        Names of the created roles.
    """
    with connection.transaction():
        existing = _names(connection)
        missing = [
            role for role in backup.roles if role.name in required and role.name not in existing
        ]
        for role in missing:
            _create(connection, role)
        names = {role.name for role in missing}
        grantable = existing | names
        _grant(
            connection, [m for m in backup.memberships if m.member in names and m.role in grantable]
        )
    return sorted(names)


def restore_roles(connection: psycopg.Connection[Any], backup: Roles) -> list[str]:
    """Restore all roles: attributes, expiry, settings, memberships. Existing roles keep their passwords.

    Roles that are not in the backup are not changed.

    Args:
        connection: as a superuser; its own attributes are not changed.
        backup: the roles of the backup.

    Returns:
        Names of the created roles.
    """
    with connection.transaction():
        existing, own_name = _names(connection), connection.info.user
        for role in backup.roles:
            if role.name not in existing:
                _create(connection, role)
                continue
            if role.name != own_name:
                _execute(connection, "ALTER ROLE {} WITH {}", _name(role.name), _attributes(role))
            _comment(connection, role)
            _execute(connection, "ALTER ROLE {} RESET ALL", _name(role.name))
            set_values(connection, sql.SQL("ALTER ROLE {}").format(_name(role.name)), role.settings)
        connection.execute("ALTER ROLE ALL RESET ALL")
        set_values(connection, sql.SQL("ALTER ROLE ALL"), backup.everybody)
        _exchange_memberships(connection, backup)
    return sorted(set(backup.names) - existing)


# ---------------------------------------------------------------------- inside
def _create(connection: psycopg.Connection[Any], role: Role) -> None:
    password = sql.SQL("PASSWORD {}").format(sql.Literal(role.password))
    _execute(connection, "CREATE ROLE {} WITH {} {}", _name(role.name), _attributes(role), password)
    _comment(connection, role)
    set_values(connection, sql.SQL("ALTER ROLE {}").format(_name(role.name)), role.settings)


def _attributes(role: Role) -> sql.Composable:
    flags = [flag.upper() if getattr(role, flag) else f"NO{flag.upper()}" for flag in FLAGS]
    return sql.SQL("{} CONNECTION LIMIT {} VALID UNTIL {}").format(
        sql.SQL(" ").join(sql.SQL(flag) for flag in flags),
        sql.Literal(role.connection_limit),
        sql.Literal(role.valid_until or "infinity"),
    )


def _comment(connection: psycopg.Connection[Any], role: Role) -> None:
    _execute(connection, "COMMENT ON ROLE {} IS {}", _name(role.name), sql.Literal(role.comment))


def _exchange_memberships(connection: psycopg.Connection[Any], backup: Roles) -> None:
    """Revoke memberships that were granted since the backup, and grant those of the backup."""
    names, saved = set(backup.names), set(backup.memberships)
    for membership in _memberships(connection):
        restorable = membership.role in names or membership.role.startswith("pg_")
        if membership not in saved and membership.member in names and restorable:
            by = _granted_by(connection, membership)
            _execute(
                connection,
                "REVOKE {} FROM {}{} CASCADE",
                _name(membership.role),
                _name(membership.member),
                by,
            )
    current = set(_memberships(connection))
    _grant(
        connection, [membership for membership in backup.memberships if membership not in current]
    )


def _grant(connection: psycopg.Connection[Any], memberships: list[Membership]) -> None:
    """Grant memberships in an order in which every grantor has the right to grant."""
    pending = list(memberships)
    while pending:
        grantors = _grantors(connection)
        possible = [
            m for m in pending if m.grantor is None or (m.role, m.grantor) in grantors
        ] or pending[:1]
        for membership in possible:
            pending.remove(membership)
            has_grantor = (membership.role, membership.grantor) in grantors
            by = _granted_by(connection, membership) if has_grantor else sql.SQL("")
            options = _options(connection, membership)
            _execute(
                connection,
                "GRANT {} TO {}{}{}",
                _name(membership.role),
                _name(membership.member),
                options,
                by,
            )


def _grantors(connection: psycopg.Connection[Any]) -> set[tuple[str, str]]:
    """Pairs of role and grantor: superusers may grant any role, others those with the admin option."""
    query = """
        SELECT r.rolname, g.rolname FROM pg_authid r, pg_authid g WHERE g.rolsuper
        UNION SELECT r.rolname, g.rolname FROM pg_auth_members a
              JOIN pg_authid r ON r.oid = a.roleid JOIN pg_authid g ON g.oid = a.member WHERE a.admin_option"""
    return {(role, grantor) for role, grantor in connection.execute(query).fetchall()}


def _granted_by(connection: psycopg.Connection[Any], membership: Membership) -> sql.Composable:
    if membership.grantor is None or connection.info.server_version < 160000:
        return sql.SQL("")
    return sql.SQL(" GRANTED BY {}").format(_name(membership.grantor))


def _options(connection: psycopg.Connection[Any], membership: Membership) -> sql.Composable:
    if connection.info.server_version < 160000:
        return sql.SQL(" WITH ADMIN OPTION" if membership.admin else "")
    given = {"ADMIN": membership.admin, "INHERIT": membership.inherit, "SET": membership.set}
    words = [f"{name} {value}" for name, value in given.items() if value is not None]
    return sql.SQL(" WITH " + ", ".join(words))


def _memberships(connection: psycopg.Connection[Any]) -> list[Membership]:
    return [Membership(**row) for row in _rows(connection, MEMBERSHIPS)]


def _names(connection: psycopg.Connection[Any]) -> set[str]:
    return {name for (name,) in connection.execute("SELECT rolname FROM pg_authid").fetchall()}


def _rows(connection: psycopg.Connection[Any], query: str) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return cursor.execute(query.encode()).fetchall()


def _name(name: str) -> sql.Identifier:
    return sql.Identifier(name)


def _execute(connection: psycopg.Connection[Any], text: str, *parts: sql.Composable) -> None:
    connection.execute(sql.SQL(text).format(*parts))
