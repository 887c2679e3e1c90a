"""Replaces databases of the live cluster by those of a set, without ever having neither.

The old database is renamed, not dropped: it stays beside the new one until somebody drops it. From the safety backup
on it is read-only; the new one lets nobody in until it was compared. Everything goes through the primary, so the
standbys follow by themselves. Roles keep the passwords that they have; those that are gone come back with the set's.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from archive.leftovers import Leftovers
from archive.manifest import Measure
from archive.reader import SetReader
from components.access import Access, Endpoint
from components.base import Live, Served
from components.postgresql.client import (
    PORT,
    SECRET,
    STATEFULSET,
    SUPERUSER,
    connect_long,
    program,
    where,
)
from components.postgresql.fingerprint import SESSION, items_of, measure_database
from components.postgresql.restore import DUMP, GLOBALS, of_superuser, run
from components.questions import ask_members, words
from errors import TemporaryError

MAINTENANCE = "template1"  # from where databases are renamed
OPTIONS = ("--exit-on-error",)
READ_ONLY = "ALTER DATABASE {} SET default_transaction_read_only = on"
READ_WRITE = "ALTER DATABASE {} RESET default_transaction_read_only"
ROLE = re.compile(r'(?:CREATE|ALTER) ROLE (?:"(?P<quoted>(?:[^"]|"")+)"|(?P<plain>\w+))')
ASIDE = re.compile(r"__(?:before|unfinished)_\d{8}t\d{6}$")
BEFORE = re.compile(r"__before_\d{8}t\d{6}$")
# Of a dump's list: what is about the database as a whole, and is restored with it or not at all.
OF_DATABASE = re.compile(r"^\d+; \d+ \d+ (?:ACL|COMMENT|SECURITY LABEL) - DATABASE ")
PASSWORD = re.compile(r" PASSWORD '(?:[^']|'')*'")


def units(reader: SetReader) -> dict[str, int]:
    """Databases of the set with their sizes; not the one that servers and proxies ask their questions in, nor what an
    earlier restore has put aside.
    """
    names = {reader.unit(name): reader.size(name) for name in reader.names(DUMP)}
    return {
        unit: size
        for unit, size in names.items()
        if unit != f"database {SUPERUSER}" and not ASIDE.search(unit)
    }


@contextmanager
def fence(access: Access, chosen: Iterable[str]) -> Iterator[str]:
    """Make the databases read-only; on leaving, open what has their names then."""
    names = [unit.partition(" ")[2] for unit in chosen]
    with connect_long(access, _primary(access), MAINTENANCE) as connection:
        for name in names:
            _undo_interrupted(connection, name)
        limits = {n: limit for n, limit in _limits(connection).items() if n in names}
    try:
        with connect_long(access, _primary(access), MAINTENANCE) as connection:
            for name in limits:
                connection.execute(_statement(READ_ONLY, name))
                _end_sessions(connection, name)
        yield "the databases are read-only, and refuse connections while they are restored"
    finally:
        with connect_long(access, _primary(access), MAINTENANCE) as connection:
            for name in names:
                if _there(connection, name):
                    connection.execute(_statement(READ_WRITE, name))
                    limit = sql.Literal(limits.get(name, -1))
                    text = sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}")
                    connection.execute(text.format(sql.Identifier(name), limit))


def replace(
    access: Access,
    served: Served | None,
    reader: SetReader,
    chosen: Iterable[str],
    leftovers: Leftovers,
) -> list[str]:
    """Restore databases in the place of the live ones.

    Returns:
        What is kept of the old ones, for people.

    Raises:
        Damaged: an artefact is not what was stored.
        PermanentError, TemporaryError: PostgreSQL does not take it; the old database has its name back.
    """
    primary, password = _primary(access), access.secret(SECRET, "postgres-password")
    psql, pg_restore = (program(access, name, password) for name in ("psql", "pg_restore"))
    server, spool = where(primary, MAINTENANCE), access.settings.backup.spool
    with connect_long(access, primary, MAINTENANCE) as connection:
        known = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
    roles = live_roles(reader.read(GLOBALS).decode(), known)
    run(psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", server, stdin=roles)
    kept = []
    wanted = set(chosen)
    spool.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=spool) as directory, leftovers.replacing(wanted):
        entries = Path(directory) / "entries"
        for artefact in reader.names(DUMP):
            if reader.unit(artefact) not in wanted:
                continue
            name = reader.unit(artefact).partition(" ")[2]
            dump = reader.save(artefact, Path(directory) / "database.dump")
            with _aside(access, primary, name) as old:
                # the database itself first, with its rights, comment and settings, and nothing in it: so that it can
                # be closed before there is something to see
                entries.write_text(of_database(run(pg_restore, "--list", "--create", str(dump))))
                run(pg_restore, "--create", "-L", str(entries), *OPTIONS, "-d", server, str(dump))
                with connect_long(access, primary, MAINTENANCE) as connection:
                    connection.execute(_statement("ALTER DATABASE {} CONNECTION LIMIT 0", name))
                    _end_sessions(connection, name)
                run(pg_restore, "--jobs=2", *OPTIONS, "-d", where(primary, name), str(dump))
            dump.unlink()
            if old:
                kept.append(f'the old database is kept as "{old}": drop it when nobody needs it')
    return kept


def measure(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """What the live databases hold now."""
    primary = _primary(access)
    found: list[Measure] = []
    for name in (unit.partition(" ")[2] for unit in chosen):
        with connect_long(access, primary, name, *SESSION) as connection:
            items = items_of(reader.manifest.fingerprint, name)
            found += measure_database(connection, name, items)
    return found


LIVE = Live(
    units,
    fence,
    replace,
    measure,
    writers="the databases are read-only from the safety backup on, and closed while they are restored and compared",
    fences=True,
    accounts="roles that are gone come back with the set's passwords; those that are there keep their own",
    beside=True,
)


def live_roles(text: str, known: set[str]) -> str:
    """The roles of a set for a server that has some of them: those keep their passwords.

    Args:
        text: SQL of pg_dumpall --globals-only.
        known: roles that the server has.
    """
    lines = []
    for line in text.splitlines(keepends=True):
        match = ROLE.match(line)
        name = (match["plain"] or match["quoted"].replace('""', '"')) if match else ""
        if of_superuser(line) or (name in known and line.startswith("CREATE ROLE")):
            continue
        lines.append(PASSWORD.sub("", line) if name in known else line)
    return "".join(lines)


def of_database(listed: str) -> str:
    """The entries of a dump that are about the database and not about what is in it.

    pg_restore makes the database and its settings whatever it is asked for, and its rights and comment only with it:
    a second run without --create leaves them out (`_tocEntryRequired` in pg_backup_archiver.c).

    Args:
        listed: what `pg_restore --list --create` says.
    """
    return "".join(f"{line}\n" for line in listed.splitlines() if OF_DATABASE.match(line))


# ---------------------------------------------------------------------- inside
def _undo_interrupted(connection: psycopg.Connection[Any], name: str) -> None:
    """Give the old database its name back where a restore was killed before it had finished the new one.

    That one is still closed then; it is put aside as well, since it is not for us to say that nobody needs it.
    """
    limits = _limits(connection)
    before = sorted(one for one in limits if BEFORE.search(one) and _stem(one) == name[:40])
    if not before or limits.get(name, 0) != 0:
        return
    if name in limits:
        _end_sessions(connection, name)
        unfinished = f"{name[:40]}__unfinished_{datetime.now(UTC):%Y%m%dt%H%M%S}"
        connection.execute(_statement("ALTER DATABASE {} RENAME TO {}", name, unfinished))
    _end_sessions(connection, before[-1])
    connection.execute(_statement("ALTER DATABASE {} RENAME TO {}", before[-1], name))


def _limits(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """How many sessions each database takes; -1 is any number."""
    rows = connection.execute("SELECT datname, datconnlimit FROM pg_database").fetchall()
    return {str(name): int(limit) for name, limit in rows}


def _stem(aside: str) -> str:
    return aside[: aside.rindex("__")]


@contextmanager
def _aside(access: Access, primary: Endpoint, name: str) -> Iterator[str]:
    """Give a database another name while its successor is made; gives it back if that fails."""
    old = f"{name[:40]}__before_{datetime.now(UTC):%Y%m%dt%H%M%S}"
    with connect_long(access, primary, MAINTENANCE) as connection:
        there = _there(connection, name)
        if there:
            _end_sessions(connection, name)
            connection.execute(_statement("ALTER DATABASE {} RENAME TO {}", name, old))
        try:
            yield old if there else ""
        except BaseException:
            _end_sessions(connection, name)
            connection.execute(_statement("DROP DATABASE IF EXISTS {} (FORCE)", name))
            if there:
                connection.execute(_statement("ALTER DATABASE {} RENAME TO {}", old, name))
            raise


def _primary(access: Access) -> Endpoint:
    """The node that takes writes; asked as the superuser, whom no fence keeps out."""

    def standby(node: Endpoint) -> bool:
        with connect_long(access, node, MAINTENANCE) as connection:
            return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)

    members = access.settings.components.postgresql.members
    nodes = access.endpoints(STATEFULSET, members, PORT)
    answers = ask_members(nodes, standby)
    found = [node for node in nodes if answers.good.get(node.member) is False]
    if len(found) != 1:
        raise TemporaryError(
            f"PostgreSQL has {len(found)} primaries within reach: {words(answers.bad)}", delay=15
        )
    return found[0]


def _there(connection: psycopg.Connection[Any], name: str) -> bool:
    query = "SELECT 1 FROM pg_database WHERE datname = %s"
    return connection.execute(query, [name]).fetchone() is not None


def _end_sessions(connection: psycopg.Connection[Any], name: str) -> None:
    query = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"
    connection.execute(query, [name])


def _statement(text: LiteralString, *names: str) -> sql.Composed:
    return sql.SQL(text).format(*(sql.Identifier(name) for name in names))
