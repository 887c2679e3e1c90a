"""Fills an empty database from a dump: each owner's code with that owner's rights, in a proof as in a live restore.

`rights` says which entries run code. For those a role is made that can log in for a day, is a
member of the owner only, and is dropped when its entries are restored. While it exists, no other role
but superusers gets in: rights and limit of the database are put aside, and given back.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from cluster.command import Command
from components.access import Access, Endpoint
from components.postgresql.catalog.properties import read_rights, restore_rights
from components.postgresql.client import (
    MAINTENANCE,
    connect_superuser,
    program,
    where,
)
from components.postgresql.connection.failures import (
    explained,
    first_error,
    server_words,
    without_statement,
)
from components.postgresql.connection.session import WRITES
from components.postgresql.dumps.foreign_objects import check_unchanged, foreign_objects
from components.postgresql.dumps.partitions import lend_partitions, take_back
from components.postgresql.dumps.rights import Run, plan_runs
from components.postgresql.dumps.toc import POST_DATA, PRE_DATA, read_entries
from components.postgresql.replacement.aside import ASIDE
from errors import PermanentError
from redaction import redact

EXIT = "--exit-on-error"
LOAD_SECONDS = 86400.0  # of one database
SAID_CHARACTERS = 2000
# Which object of a dump it was: kind, schema, name. What it holds is in the lines behind.
ENTRY = re.compile(r"from TOC entry \d+; \d+ \d+ (.+)")
# Of a dump's list: what is about the database as a whole, and is restored with it or not at all.
OF_DATABASE = re.compile(r"^\d+; \d+ \d+ (?:ACL|COMMENT|SECURITY LABEL) - DATABASE ")
ROLE = "isa_cloud_restore_"  # of a role that is dropped again; a random end follows
LEFT = rf"SELECT rolname FROM pg_roles WHERE rolname ~ '^{ROLE}[0-9a-f]{{8}}$'"
# Databases where it still has rights: dropping a role takes those of a database from within it.
RESTING = """
    SELECT d.datname, bool_or(s.deptype = 'o') FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
    WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = %s::regrole AND d.datallowconn GROUP BY 1
"""
END_SESSIONS = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s"
SHUT_OUT = re.compile(r"pg_hba\.conf|authentication")  # before a database is looked at
LIMIT = "SELECT datconnlimit FROM pg_database WHERE datname = %s"
SUPERUSERS = "SELECT rolname FROM pg_roles WHERE rolsuper"
# Permissions that an owner may lack in the own database, and that a superuser does not need. Only missing ones are
# granted, to this role only, and only in schemas that the entries are in or refer to: where the owner created a table,
# filled it, or what its keys refer to. The parameters are the owner and those schemas.
LACKING: dict[LiteralString, str] = {
    "GRANT USAGE ON SCHEMA {} TO {}": """
        SELECT ARRAY[nspname] FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND nspname = ANY (%(schemas)s)
          AND NOT has_schema_privilege(%(owner)s, oid, 'USAGE')""",
    "GRANT INSERT ON {} TO {}": """
        SELECT DISTINCT ARRAY[n.nspname, p.relname]
        FROM pg_class c CROSS JOIN LATERAL (
            SELECT c.oid UNION SELECT relid FROM pg_partition_ancestors(c.oid)) AS filled
        JOIN pg_class p ON p.oid = filled.oid JOIN pg_namespace n ON n.oid = p.relnamespace
        WHERE c.relkind IN ('r', 'p') AND n.nspname = ANY (%(schemas)s) AND pg_get_userbyid(c.relowner) = %(owner)s
          AND NOT has_table_privilege(pg_get_userbyid(c.relowner), p.oid, 'INSERT')""",
    # for the TRUNCATE before COPY (`truncation`)
    "GRANT TRUNCATE ON {} TO {}": """
        SELECT ARRAY[n.nspname, c.relname] FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND n.nspname = ANY (%(schemas)s) AND pg_get_userbyid(c.relowner) = %(owner)s
          AND NOT has_table_privilege(pg_get_userbyid(c.relowner), c.oid, 'TRUNCATE')""",
}
MAKE_IN_SCHEMA: LiteralString = "GRANT CREATE ON SCHEMA {} TO {}"
LACKING_TO_MAKE: dict[LiteralString, str] = {
    MAKE_IN_SCHEMA: """
        SELECT ARRAY[nspname] FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND nspname = ANY (%(schemas)s)
          AND NOT has_schema_privilege(%(owner)s, oid, 'CREATE')""",
    "GRANT CREATE ON TABLESPACE {} TO {}": """
        SELECT ARRAY[spcname] FROM pg_tablespace
        WHERE spcname !~ '^pg_' AND NOT has_tablespace_privilege(%(owner)s, oid, 'CREATE')""",
}
LACKING_TO_REFER: dict[LiteralString, str] = {
    "GRANT REFERENCES ON {} TO {}": """
        SELECT ARRAY[n.nspname, c.relname] FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname = ANY (%(schemas)s)
          AND NOT has_table_privilege(%(owner)s, c.oid, 'REFERENCES')""",
}
# What lies in a schema by itself: not a column's own sequence, nor the multirange of a range.
IN_SCHEMA = """
    SELECT count(*) FROM pg_depend d
    WHERE refclassid = 'pg_namespace'::regclass AND refobjid = %s::regnamespace AND deptype = 'n'
      AND NOT EXISTS (SELECT FROM pg_depend i WHERE (i.classid, i.objid) = (d.classid, d.objid) AND i.deptype = 'i')
"""
FOREIGN_KEYS = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND conparentid = 0"


@dataclass(frozen=True)
class Server:
    """Where databases are restored to.

    Attributes:
        access: knows where programs are.
        node: of the server.
        version: its number.
        password: of the superuser; "" where none is asked for.
    """

    access: Access
    node: Endpoint
    version: int
    password: str

    def connect(self, database: str) -> psycopg.Connection[Any]:
        """A session of the superuser."""
        return connect_superuser(
            self.node, database, self.password, *WRITES, "lock_timeout=60s", "timezone=UTC"
        )

    def pg_restore(self) -> Command:
        """The program, as the superuser."""
        return program(self.access, "pg_restore", self.password, self.version)


def make_database(target: Server, dump: Path, *options: str) -> None:
    """Make the database of a dump, with its rights, comment and settings, and nothing in it.

    Args:
        target: where.
        dump: in the custom format.
        options: further ones of pg_restore.
    """
    pg_restore, entries = target.pg_restore(), dump.with_name("entries")
    listed = of_database(run(pg_restore, "--list", "--create", str(dump)))
    entries.write_text(listed, encoding="utf-8")
    server = where(target.node, MAINTENANCE)
    run(pg_restore, "--create", *options, "-L", str(entries), EXIT, "-d", server, str(dump))


def of_database(listed: str) -> str:
    """The entries of a dump that are about the database and not about what is in it.

    pg_restore makes the database and its settings whatever it is asked for, and its rights and comment only with it:
    a second run without --create leaves them out (`_tocEntryRequired` in pg_backup_archiver.c).

    Args:
        listed: what `pg_restore --list --create` says.
    """
    return "".join(f"{line}\n" for line in listed.splitlines() if OF_DATABASE.match(line))


def fill(server: Server, database: str, dump: Path) -> None:
    """Restore what is in a database, but not what it is as a whole.

    Args:
        server: that has it.
        database: its name; empty.
        dump: in the custom format; in a directory that no other user can write to.

    Raises:
        PermanentError: the server does not take it.
        TemporaryError: the server went away.
    """
    with explained(database), server.connect(database) as connection:
        superusers = {name for (name,) in connection.execute(SUPERUSERS).fetchall()}
        _, owner = read_rights(connection, database)
    listed = dump.with_name("entries")
    for one in plan_runs(read_entries(dump), superusers, owner):
        listed.write_text("".join(f"{number};\n" for number in one.numbers), encoding="utf-8")
        # one entry after the other until there are rows: two workers would be started for nothing
        jobs = ("--jobs=2",) if one.section != PRE_DATA and len(one.entries) > 1 else ()
        words = (*jobs, EXIT, f"--use-list={listed}", str(dump))
        if not one.owner:
            run(server.pg_restore(), *words, f"--dbname={where(server.node, database)}")
            continue
        with explained(database), acting(server, database, one) as (name, password):
            # what it makes is its own, and then the owner's
            target = where(server.node, database, name)
            run(program(server.access, "pg_restore", password), *words, "--no-owner",
                f"--dbname={target}")  # fmt: skip


@contextmanager
def acting(server: Server, database: str, run: Run) -> Iterator[tuple[str, str]]:
    """Create a role with an owner's permissions and those that the owner lacks for the restore, nothing else.

    Yields:
        Its name and its password.
    """
    with server.connect(database) as connection:
        name, password = _new_role(connection)
        role, owner = sql.Identifier(name), sql.Identifier(run.owner)
        try:
            with connection.transaction():
                connection.execute(sql.SQL("GRANT {} TO {}").format(owner, role))
                lent = _grant_lacking(connection, role, run)
            before, others = _counted(connection, lent), foreign_objects(connection, run.owner)
            partitions = lend_partitions(connection, role, run.owner, run.entries)
            with _admitted(connection, database, role):
                yield name, password
            connection.execute(END_SESSIONS, [name])
            take_back(connection, run.owner, partitions)
            _check_made(run, before, _counted(connection, lent))
            check_unchanged(run.owner, others, foreign_objects(connection, run.owner))
            connection.execute(sql.SQL("REASSIGN OWNED BY {} TO {}").format(role, owner))
        except BaseException:
            with suppress(psycopg.Error):  # the next restore does it, then
                connection.execute(END_SESSIONS, [name])
                _drop(connection, name)
            raise
        _drop(connection, name)


def run(command: Command, *words: str) -> str:
    """Run a client program; what it refuses is the data's fault, or ours, and no time heals it. Gives its output."""
    done = command.run(*words, timeout=LOAD_SECONDS)
    if done.returncode != 0:
        name, entry = Path(command.program).name, ENTRY.search(done.stderr)
        where = f" at {entry[1]}" if entry else ""
        said = without_statement(first_error(done.stderr))[:SAID_CHARACTERS]
        raise PermanentError(f"{name} exited with {done.returncode}{where}", said=said)
    return done.stdout


def prepare(server: Server) -> None:
    """Drop roles of restores that were killed, and see that a new one could log in: before anything is put aside.

    Nobody knows the passwords of those that are left, but they keep their owners from being dropped.

    Raises:
        PermanentError: the server lets no role in that it has just been given.
    """
    with explained(server.node.member), server.connect(MAINTENANCE) as connection:
        for (name,) in connection.execute(LEFT.encode()).fetchall():
            _drop_left(server, connection, name)
        name, password = _new_role(connection)
        try:
            connect = where(server.node, MAINTENANCE, name)
            psycopg.connect(connect, password=password).close()
        except psycopg.OperationalError as exc:
            if not SHUT_OUT.search(
                str(exc)
            ):  # the database's own limits and rights, which are not tried here
                return
            raise PermanentError(
                f"{server.node.member} rejected {ROLE}…, a role created for the restore with the permissions of one "
                "owner: allow any role from here in pg_hba.conf",
                said=server_words(exc),
            ) from exc
        finally:
            _drop(connection, name)


# ---------------------------------------------------------------------- inside
def _new_role(connection: psycopg.Connection[Any]) -> tuple[str, str]:
    """Make a role that can log in until tomorrow; the server, and its log, see its password's verifier only."""
    name, password = f"{ROLE}{secrets.token_hex(4)}", redact.remember(secrets.token_urlsafe(24))
    given = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256")
    until = datetime.now(UTC) + timedelta(days=1)
    create = sql.SQL("CREATE ROLE {} LOGIN INHERIT NOSUPERUSER PASSWORD {} VALID UNTIL {}")
    values = (sql.Literal(given.decode()), sql.Literal(until.isoformat()))
    connection.execute(create.format(sql.Identifier(name), *values))
    return name, password


def _grant_lacking(
    connection: psycopg.Connection[Any], role: sql.Identifier, run: Run
) -> list[str]:
    """Grant what an owner lacks; returns schemas in which the owner itself may create nothing."""
    lent, lacking = list[str](), dict(LACKING)
    if run.section in (PRE_DATA, POST_DATA):
        lacking |= LACKING_TO_MAKE
    if run.section == POST_DATA:
        lacking |= LACKING_TO_REFER
    for grant, query in lacking.items():
        asked = {"owner": run.owner, "schemas": list(run.schemas)}
        for (names,) in connection.execute(query.encode(), asked).fetchall():
            connection.execute(sql.SQL(grant).format(sql.Identifier(*names), role))
            if grant == MAKE_IN_SCHEMA:
                lent += names
    return lent


def _counted(connection: psycopg.Connection[Any], schemas: Iterable[str]) -> dict[str, int]:
    """Number of objects by schema, and of foreign keys under ""."""
    found = {}
    for schema in schemas:
        text = sql.Identifier(schema).as_string(connection)
        row = connection.execute(IN_SCHEMA, [text]).fetchone()
        found[schema] = int(row[0]) if row else 0
    row = connection.execute(FOREIGN_KEYS).fetchone()
    return {**found, "": int(row[0]) if row else 0}


def _check_made(run: Run, before: dict[str, int], after: dict[str, int]) -> None:
    """Check that an owner's code used the permissions granted for the restore for nothing else.

    A function in another owner's schema would be called by roles that trust that schema.

    Raises:
        PermanentError: there is more than the dump's entries make.
    """
    for schema, count in before.items():
        if after[schema] - count > (run.made_in(schema) if schema else run.references):
            what = f"objects in schema {schema}" if schema else "foreign keys"
            raise PermanentError(
                f"code of role {run.owner} created other {what} without permission while its own objects were "
                "restored: check its functions in the original database"
            )


@contextmanager
def _admitted(
    connection: psycopg.Connection[Any], database: str, role: sql.Identifier
) -> Iterator[None]:
    """Let only one role and superusers connect to a database, whatever its own limit and grants are."""
    name = sql.Identifier(database)
    rights, owner = read_rights(connection, database)
    row = connection.execute(LIMIT, [database]).fetchone()
    assert row is not None
    limit = sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}")
    with connection.transaction():
        for grantee in {right.grantee for right in rights}:
            whose = sql.SQL("PUBLIC") if grantee is None else sql.Identifier(grantee)
            revoke = sql.SQL("REVOKE ALL ON DATABASE {} FROM {} CASCADE")
            connection.execute(revoke.format(name, whose))
        connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, role))
        connection.execute(limit.format(name, sql.Literal(-1)))
    yield
    with connection.transaction():
        connection.execute(limit.format(name, sql.Literal(row[0])))
        restore_rights(connection, name, owner, rights)


def _drop_left(server: Server, connection: psycopg.Connection[Any], name: str) -> None:
    """Drop a role of a restore that was killed, if it is one: what such a role made is in an unfinished database."""
    resting = connection.execute(RESTING, [f'"{name}"']).fetchall()
    kept = [database for database, owns in resting if owns and not ASIDE.search(database)]
    why = f"it owns objects in database {', '.join(kept)}"
    if not kept:
        try:
            for database, _ in resting:
                with server.connect(database) as inside:
                    inside.execute(END_SESSIONS, [name])
                    _drop_owned(inside, name)
            _drop(connection, name)
            return
        except psycopg.errors.DependentObjectsStillExist as exc:
            why = server_words(exc)
    raise PermanentError(
        f"role {name} has the name of a role that a restore creates for itself, and cannot be dropped: {why}. Rename "
        "it, or drop it"
    )


def _drop(connection: psycopg.Connection[Any], name: str) -> None:
    with connection.transaction():
        _drop_owned(connection, name)
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def _drop_owned(connection: psycopg.Connection[Any], name: str) -> None:
    connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
