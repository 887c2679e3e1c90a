"""Roles as data: read from the catalogue, and made by statements whose every name and value the client library quotes.

SQL text of pg_dumpall cannot be taken apart line by line: a setting may hold a newline and a statement behind it. A
backup has that text too, for a restore by hand. https://www.postgresql.org/docs/18/catalog-pg-authid.html,
https://www.postgresql.org/docs/18/catalog-pg-auth-members.html
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import psycopg
from psycopg import sql
from pydantic import BaseModel, ConfigDict

from components.postgresql.grants import readable, readable_or_null
from components.postgresql.settings import set_values

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
# What was set from a database of another encoding, and has no form that another server would take.
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
    """One role; attributes are called as in CREATE ROLE."""

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
    """That a role was granted to another one, by whom, with which options; None where the server has no such option."""

    role: str
    member: str
    grantor: str | None
    admin: bool
    inherit: bool | None
    set: bool | None


class Roles(_Part):
    """All roles of a server.

    Attributes:
        roles: but for the server's own.
        memberships: of these.
        everybody: settings of ALTER ROLE ALL.
        needed: database → roles that own something in it, or have rights or settings there.
    """

    roles: list[Role]
    memberships: list[Membership]
    everybody: list[str]
    needed: dict[str, list[str]]

    @property
    def names(self) -> list[str]:
        """Of all roles."""
        return [role.name for role in self.roles]

    def for_databases(self, databases: Iterable[str]) -> set[str]:
        """Roles that databases need, and those whose rights these have."""
        found = {name for database in databases for name in self.needed.get(database, ())}
        while True:
            above = {m.role for m in self.memberships if m.member in found} & set(self.names)
            if above <= found:
                return found
            found |= above


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
    """What of roles is no UTF-8, and is left out."""
    return [words for (words,) in connection.execute(UNREADABLE.encode()).fetchall()]


def create_missing(
    connection: psycopg.Connection[Any], backup: Roles, wanted: Collection[str]
) -> list[str]:
    """Make roles that are gone, with everything that they were; roles that are there stay exactly as they are.

    Args:
        connection: to the primary.
        backup: the roles of the backup.
        wanted: roles that are needed.

    Returns:
        Names of the roles that were made.
    """
    with connection.transaction():
        there = _names(connection)
        made = [role for role in backup.roles if role.name in wanted and role.name not in there]
        for role in made:
            _create(connection, role)
        names = {role.name for role in made}
        known = there | names
        _grant(connection, [m for m in backup.memberships if m.member in names and m.role in known])
    return sorted(names)


def restore_roles(connection: psycopg.Connection[Any], backup: Roles) -> list[str]:
    """Make all roles what they were: attributes, expiry, settings, memberships. Passwords of roles that are there stay.

    Roles that the backup does not know are left alone.

    Args:
        connection: as a superuser, whose own attributes stay.
        backup: the roles of the backup.

    Returns:
        Names of the roles that were gone.
    """
    with connection.transaction():
        there, me = _names(connection), connection.info.user
        for role in backup.roles:
            if role.name not in there:
                _create(connection, role)
                continue
            if role.name != me:
                _execute(connection, "ALTER ROLE {} WITH {}", _name(role.name), _attributes(role))
            _comment(connection, role)
            _execute(connection, "ALTER ROLE {} RESET ALL", _name(role.name))
            set_values(connection, sql.SQL("ALTER ROLE {}").format(_name(role.name)), role.settings)
        connection.execute("ALTER ROLE ALL RESET ALL")
        set_values(connection, sql.SQL("ALTER ROLE ALL"), backup.everybody)
        _exchange_memberships(connection, backup)
    return sorted(set(backup.names) - there)


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
    """Take away what the backup's members have been granted since, and grant what they had."""
    names, wanted = set(backup.names), set(backup.memberships)
    for membership in _memberships(connection):
        known = membership.role in names or membership.role.startswith("pg_")
        if membership not in wanted and membership.member in names and known:
            by = _granted_by(connection, membership)
            _execute(
                connection,
                "REVOKE {} FROM {}{} CASCADE",
                _name(membership.role),
                _name(membership.member),
                by,
            )
    there = set(_memberships(connection))
    _grant(connection, [membership for membership in backup.memberships if membership not in there])


def _grant(connection: psycopg.Connection[Any], wanted: list[Membership]) -> None:
    """Grant memberships: a grantor must have been given the right to grant before he is named as one."""
    left = list(wanted)
    while left:
        able = _grantors(connection)
        ready = [m for m in left if m.grantor is None or (m.role, m.grantor) in able] or left[:1]
        for one in ready:
            left.remove(one)
            named = (one.role, one.grantor) in able
            by = _granted_by(connection, one) if named else sql.SQL("")
            options = _options(connection, one)
            _execute(
                connection, "GRANT {} TO {}{}{}", _name(one.role), _name(one.member), options, by
            )


def _grantors(connection: psycopg.Connection[Any]) -> set[tuple[str, str]]:
    """Who may grant which role: superusers any, others those of which they have the right to."""
    query = """
        SELECT r.rolname, g.rolname FROM pg_authid r, pg_authid g WHERE g.rolsuper
        UNION SELECT r.rolname, g.rolname FROM pg_auth_members a
              JOIN pg_authid r ON r.oid = a.roleid JOIN pg_authid g ON g.oid = a.member WHERE a.admin_option"""
    return {(role, grantor) for role, grantor in connection.execute(query).fetchall()}


def _granted_by(connection: psycopg.Connection[Any], one: Membership) -> sql.Composable:
    if one.grantor is None or connection.info.server_version < 160000:
        return sql.SQL("")
    return sql.SQL(" GRANTED BY {}").format(_name(one.grantor))


def _options(connection: psycopg.Connection[Any], one: Membership) -> sql.Composable:
    if connection.info.server_version < 160000:
        return sql.SQL(" WITH ADMIN OPTION" if one.admin else "")
    given = {"ADMIN": one.admin, "INHERIT": one.inherit, "SET": one.set}
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
