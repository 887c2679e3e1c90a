"""A database under another name while its successor is made; what stands where is written in the catalog.

The catalog survives this process, and a promoted standby has it too: a rename that was not replicated is
no rename there. So each step is one transaction with its mark (`ALTER DATABASE … SET isa.…`), and who undoes it goes
by the marks, never by what was done before. A database that is marked unfinished is closed, and is never opened.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from archive.cleanup_journal import CleanupJournal
from cluster.command import CANCELLATION
from components.access import Access
from components.postgresql.client import at_primary
from components.postgresql.grants import CONNECTIONS, readable
from errors import IsaError, TemporaryError

log = logging.getLogger(__name__)

SUCCESSOR = "isa.successor"  # of a database put aside: who has its name, and is not finished
UNFINISHED = "isa.unfinished"  # of a successor
NAME_BYTES = 63  # PostgreSQL cuts longer ones off
FAILOVER_SECONDS = 120.0  # until there is a primary again: repmgr's takes about 30
CANCELLED_SECONDS = 5.0  # who is cancelled is killed soon
ASIDE = re.compile(r"__(?:before|unfinished)_\d{8}t\d{6}$")
DATABASES = f"""
    SELECT datname, datconnlimit, ARRAY(SELECT setting FROM unnest(setconfig) AS setting WHERE {readable("setting")})
    FROM pg_database LEFT JOIN pg_db_role_setting ON setdatabase = pg_database.oid AND setrole = 0
"""


@dataclass(frozen=True)
class Database:
    """What the catalog says of one.

    Attributes:
        limit: sessions that it takes; -1 is any number.
        settings: its own, by name.
    """

    limit: int
    settings: dict[str, str]


def databases(connection: psycopg.Connection[Any]) -> dict[str, Database]:
    """All databases by name."""
    rows = connection.execute(DATABASES.encode()).fetchall()
    return {
        str(name): Database(int(limit), dict(setting.split("=", 1) for setting in settings))
        for name, limit, settings in rows
    }


def aside_name(name: str, what: str) -> str:
    """Another name for a database, that PostgreSQL does not cut off.

    Args:
        name: its own.
        what: `before` or `unfinished`.
    """
    end = f"__{what}_{datetime.now(UTC):%Y%m%dt%H%M%S}"
    return name.encode()[: NAME_BYTES - len(end)].decode(errors="ignore") + end


@contextmanager
def aside(
    access: Access,
    name: str,
    cleanup: CleanupJournal,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """Give a database another name while its successor is made; gives it back if that fails.

    Args:
        access: the way in.
        name: of the database; there may be none.
        cleanup: records the change until it is undone.
        clock: monotonic seconds.
        sleep: waits for a primary.

    Yields:
        The other name; "" if there was no such database.

    Raises:
        TemporaryError: the old one could not be given its name back: where it is, and why.
    """
    what = cleanup.begin_replacing([f"database {name}"])
    try:
        with at_primary(access) as connection:
            old = _rename_away(connection, name)
        yield old
        with at_primary(access) as connection:
            _finish(connection, name, old)
    except BaseException as cause:
        seconds = CANCELLED_SECONDS if CANCELLATION.is_set() else FAILOVER_SECONDS
        deadline = clock() + seconds
        while True:
            try:
                with at_primary(access) as connection:
                    _drop_unfinished(connection, name)
                    undo(connection, name)
                break
            except IsaError as exc:
                if clock() > deadline:
                    raise TemporaryError(
                        f'database {name} could not be renamed back (its name is now "{name}__before_…"; run the same '
                        f"restore again to rename it): {exc}; after: {cause}"
                    ) from cause
                log.info(
                    "database %s could not be renamed back: %s; next attempt in 2 s", name, exc
                )
                sleep(2.0)
        cleanup.release(what)
        raise
    cleanup.release(what)


def undo(connection: psycopg.Connection[Any], name: str) -> None:
    """Give the old database its name back where its successor was not finished.

    That one is retained too: only a person can decide that it is no longer needed.

    Args:
        connection: at the primary, to another database.
        name: of the database.
    """
    found = databases(connection)
    old = _predecessor(found, name)
    if name in found and (old or UNFINISHED in found[name].settings):
        end_sessions(connection, name)
        connection.execute(
            statement("ALTER DATABASE {} RENAME TO {}", name, aside_name(name, "unfinished"))
        )
    if old:
        end_sessions(connection, old)
        with connection.transaction():
            connection.execute(statement("ALTER DATABASE {} RENAME TO {}", old, name))
            _unmark(connection, name, SUCCESSOR)


def close(connection: psycopg.Connection[Any], name: str, *, limit: int | None = None) -> None:
    """Let only superusers connect to a database.

    Args:
        connection: at the primary, to another database.
        name: of the database.
        limit: sessions that it takes when it is opened again; as many as before if not given.
    """
    one = databases(connection)[name]
    before = int(one.settings.get(CONNECTIONS, one.limit))
    with connection.transaction():
        _mark(connection, name, CONNECTIONS, str(before if limit is None else limit))
        connection.execute(statement("ALTER DATABASE {} CONNECTION LIMIT 0", name))
    end_sessions(connection, name)


def close_unfinished(
    connection: psycopg.Connection[Any], name: str, limit: int | None = None
) -> None:
    """Close a successor that has just been made, and mark it.

    Args:
        connection: at the primary, to another database.
        name: of the database.
        limit: sessions that it takes when it is opened again; as many as it was made with if not given.
    """
    _mark(connection, name, UNFINISHED, "on")
    close(connection, name, limit=limit)


def unmark_unfinished(connection: psycopg.Connection[Any], name: str) -> None:
    """A successor is whole now."""
    _unmark(connection, name, UNFINISHED)


def reopen(connection: psycopg.Connection[Any], name: str) -> None:
    """Let everybody into a database again that was closed by `close`; any other stays as it is."""
    one = databases(connection).get(name)
    if one is None or CONNECTIONS not in one.settings:
        return
    limit = sql.Literal(int(one.settings[CONNECTIONS]))
    with connection.transaction():
        text = sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}")
        connection.execute(text.format(sql.Identifier(name), limit))
        _unmark(connection, name, CONNECTIONS)


def end_sessions(connection: psycopg.Connection[Any], name: str) -> None:
    """End all sessions of a database, and wait until they have."""
    query = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = %s AND pid <> pg_backend_pid()"
    )
    connection.execute(query, [name])


def statement(text: LiteralString, *names: str) -> sql.Composed:
    """A statement with names in it."""
    return sql.SQL(text).format(*(sql.Identifier(name) for name in names))


# ---------------------------------------------------------------------- inside
def _rename_away(connection: psycopg.Connection[Any], name: str) -> str:
    if name not in databases(connection):
        return ""
    old = aside_name(name, "before")
    close(connection, name)  # a pool that connects again at once would hinder the renaming
    with connection.transaction():
        connection.execute(statement("ALTER DATABASE {} RENAME TO {}", name, old))
        _mark(connection, old, SUCCESSOR, name)
        reopen(connection, old)
    return old


def _finish(connection: psycopg.Connection[Any], name: str, old: str) -> None:
    """The successor is whole; it stays closed until it was compared."""
    one = databases(connection).get(name)
    if one is None or UNFINISHED not in one.settings:
        raise TemporaryError(
            f"database {name} is not the one that was created: the primary changed"
        )
    with connection.transaction():
        _unmark(connection, name, UNFINISHED)
        if old:
            _unmark(connection, old, SUCCESSOR)
            # a template cannot be dropped
            connection.execute(statement("ALTER DATABASE {} IS_TEMPLATE false", old))


def _drop_unfinished(connection: psycopg.Connection[Any], name: str) -> None:
    """What has the name, if it is what we made: where the renaming was lost with its primary it is the old one."""
    found = databases(connection)
    mine = name in found and UNFINISHED in found[name].settings
    if name in found and (mine or _predecessor(found, name)):
        connection.execute(statement("ALTER DATABASE {} IS_TEMPLATE false", name))
        connection.execute(statement("DROP DATABASE IF EXISTS {} (FORCE)", name))


def _predecessor(found: dict[str, Database], name: str) -> str:
    """What was put aside for this one, and has to come back; "" if nothing."""
    marked = (one for one, what in found.items() if what.settings.get(SUCCESSOR) == name)
    return max(marked, default="")


def _mark(connection: psycopg.Connection[Any], name: str, setting: LiteralString, to: str) -> None:
    text = sql.SQL("ALTER DATABASE {} SET {} = {}")
    parts = (sql.Identifier(name), sql.Identifier(*setting.split(".")), sql.Literal(to))
    connection.execute(text.format(*parts))


def _unmark(connection: psycopg.Connection[Any], name: str, setting: LiteralString) -> None:
    text = sql.SQL("ALTER DATABASE {} RESET {}")
    connection.execute(text.format(sql.Identifier(name), sql.Identifier(*setting.split("."))))
