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
from pathlib import Path

from archive.leftovers import REPLACING, Leftovers
from archive.manifest import Measure
from archive.reader import SetReader
from components.access import Access
from components.base import Live, Served
from components.postgresql.aside import (
    ASIDE,
    aside,
    close_unfinished,
    databases,
    end_sessions,
    reopen,
    statement,
    undo,
)
from components.postgresql.client import (
    MAINTENANCE,
    SECRET,
    SUPERUSER,
    at_primary,
    primary,
    program,
    where,
)
from components.postgresql.fingerprint import SESSION, items_of, measure_database
from components.postgresql.restore import DUMP, GLOBALS, of_superuser, run

OPTIONS = ("--exit-on-error",)
READ_ONLY = "ALTER DATABASE {} SET default_transaction_read_only = on"
READ_WRITE = "ALTER DATABASE {} RESET default_transaction_read_only"
ROLE = re.compile(r'(?:CREATE|ALTER) ROLE (?:"(?P<quoted>(?:[^"]|"")+)"|(?P<plain>\w+))')
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
    """Make the databases read-only; on leaving, open what has their names then.

    A restore that was killed is undone first, so that it is the old database that is fenced and backed up.
    """
    names = [unit.partition(" ")[2] for unit in chosen]
    with at_primary(access) as connection:
        for name in names:
            undo(connection, name)
    try:
        with at_primary(access) as connection:
            for name in names:
                if name in databases(connection):
                    connection.execute(statement(READ_ONLY, name))
                    end_sessions(connection, name)
        yield "the databases are read-only, and refuse connections while they are restored"
    finally:
        with at_primary(access) as connection:
            for name in names:
                undo(connection, name)
                if name in databases(connection):
                    connection.execute(statement(READ_WRITE, name))
                    reopen(connection, name)


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
        PermanentError, TemporaryError: PostgreSQL does not take it; the old database has its name back, or the words
            say that it has not.
    """
    node, password = primary(access), access.secret(SECRET, "postgres-password")
    psql, pg_restore = (program(access, name, password) for name in ("psql", "pg_restore"))
    server, spool = where(node, MAINTENANCE), access.settings.backup.spool
    wanted = set(chosen)
    for held in leftovers.earlier(REPLACING):
        if wanted.issuperset(held[REPLACING]):
            leftovers.release(held)  # the fence has given those their names back
    with at_primary(access) as connection:
        known = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
    roles = live_roles(reader.read(GLOBALS).decode(), known)
    run(psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", server, stdin=roles)
    kept = []
    spool.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=spool) as directory:
        entries = Path(directory) / "entries"
        for artefact in reader.names(DUMP):
            if reader.unit(artefact) not in wanted:
                continue
            name = reader.unit(artefact).partition(" ")[2]
            dump = reader.save(artefact, Path(directory) / "database.dump")
            with aside(access, name, leftovers) as old:
                # the database itself first, with its rights, comment and settings, and nothing in it: so that it can
                # be closed before there is something to see
                entries.write_text(of_database(run(pg_restore, "--list", "--create", str(dump))))
                run(pg_restore, "--create", "-L", str(entries), *OPTIONS, "-d", server, str(dump))
                with at_primary(access) as connection:
                    close_unfinished(connection, name, old)
                run(pg_restore, "--jobs=2", *OPTIONS, "-d", where(node, name), str(dump))
            dump.unlink()
            if old:
                kept.append(f'the old database is kept as "{old}": drop it when nobody needs it')
    return kept


def measure(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """What the live databases hold now."""
    found: list[Measure] = []
    for name in (unit.partition(" ")[2] for unit in chosen):
        with at_primary(access, name, *SESSION) as connection:
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
