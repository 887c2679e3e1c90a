"""Renames a database while its successor is created. The state of the procedure is recorded in the catalog.

The catalog survives this process. A promoted standby has it too, without renames that were not replicated. So each step
is one transaction together with its mark (`ALTER DATABASE … SET isa.…`). An undo looks at the marks only. A database
that is marked as unfinished is closed and never opened.
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

from archive.backup.cleanup_journal import CleanupJournal
from cluster.command import CANCELLATION
from components.access import Access
from components.postgresql.catalog.grants import CONNECTIONS, readable
from components.postgresql.client import at_primary
from errors import IsaError, TemporaryError

log = logging.getLogger(__name__)

SUCCESSOR = "isa.successor"  # mark of a renamed database: the name of its unfinished successor
UNFINISHED = "isa.unfinished"  # mark of a successor
NAME_BYTES = 63  # PostgreSQL truncates longer names
FAILOVER_SECONDS = 120.0  # time limit for a new primary; repmgr needs about 30 s
CANCELLED_SECONDS = 5.0  # a cancelled run is killed soon
ASIDE = re.compile(r"__(?:before|unfinished)_\d{8}t\d{6}$")
DATABASES = f"""
    SELECT datname, datconnlimit, ARRAY(SELECT setting FROM unnest(setconfig) AS setting WHERE {readable("setting")})
    FROM pg_database LEFT JOIN pg_db_role_setting ON setdatabase = pg_database.oid AND setrole = 0
"""


@dataclass(frozen=True)
class Database:
    """A database in the catalog.

    Attributes:
        limit: connection limit; -1 for none.
        settings: its own settings, by name.
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


def aside_name(name: str, kind: str) -> str:
    """Another name for a database, short enough for PostgreSQL.

    Args:
        name: its name.
        kind: `before` or `unfinished`.
    """
    end = f"__{kind}_{datetime.now(UTC):%Y%m%dt%H%M%S}"
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
    """Rename a database while its successor is created; rename it back if that fails.

    Args:
        access: addresses and credentials.
        name: name of the database; it need not exist.
        cleanup: records the change until it is undone.
        clock: monotonic seconds.
        sleep: waits for a primary.

    Yields:
        The other name; "" if the database does not exist.

    Raises:
        TemporaryError: the old database could not be renamed back; the message has its name and the cause.
    """
    note = cleanup.begin_replacing([f"database {name}"])
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
        cleanup.release(note)
        raise
    cleanup.release(note)


def undo(connection: psycopg.Connection[Any], name: str) -> None:
    """Rename the old database back if its successor was not finished.

    The unfinished successor is retained under another name: only a person can decide that it is not needed.

    Args:
        connection: to another database, at the primary.
        name: name of the database.
    """
    all_databases = databases(connection)
    old = _predecessor(all_databases, name)
    if name in all_databases and (old or UNFINISHED in all_databases[name].settings):
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
    """Close a database: only superusers can connect.

    Args:
        connection: to another database, at the primary.
        name: name of the database.
        limit: its connection limit after `reopen`; the current limit if left out.
    """
    database = databases(connection)[name]
    sessions = int(database.settings.get(CONNECTIONS, database.limit))
    with connection.transaction():
        _mark(connection, name, CONNECTIONS, str(sessions if limit is None else limit))
        connection.execute(statement("ALTER DATABASE {} CONNECTION LIMIT 0", name))
    end_sessions(connection, name)


def close_unfinished(
    connection: psycopg.Connection[Any], name: str, limit: int | None = None
) -> None:
    """Close a successor that was just created, and mark it as unfinished.

    Args:
        connection: to another database, at the primary.
        name: name of the database.
        limit: its connection limit after `reopen`; the current limit if left out.
    """
    _mark(connection, name, UNFINISHED, "on")
    close(connection, name, limit=limit)


def unmark_unfinished(connection: psycopg.Connection[Any], name: str) -> None:
    """Record that a successor is complete."""
    _unmark(connection, name, UNFINISHED)


def reopen(connection: psycopg.Connection[Any], name: str) -> None:
    """Open a database that was closed by `close`. Other databases are not changed."""
    database = databases(connection).get(name)
    if database is None or CONNECTIONS not in database.settings:
        return
    limit = sql.Literal(int(database.settings[CONNECTIONS]))
    with connection.transaction():
        text = sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}")
        connection.execute(text.format(sql.Identifier(name), limit))
        _unmark(connection, name, CONNECTIONS)


def end_sessions(connection: psycopg.Connection[Any], name: str) -> None:
    """End all sessions of a database, and wait for their end."""
    query = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = %s AND pid <> pg_backend_pid()"
    )
    connection.execute(query, [name])


def statement(text: LiteralString, *names: str) -> sql.Composed:
    """A statement with quoted names."""
    return sql.SQL(text).format(*(sql.Identifier(name) for name in names))


# ---------------------------------------------------------------------- inside
def _rename_away(connection: psycopg.Connection[Any], name: str) -> str:
    if name not in databases(connection):
        return ""
    old = aside_name(name, "before")
    close(connection, name)  # otherwise a pool that reconnects at once would block the rename
    with connection.transaction():
        connection.execute(statement("ALTER DATABASE {} RENAME TO {}", name, old))
        _mark(connection, old, SUCCESSOR, name)
        reopen(connection, old)
    return old


def _finish(connection: psycopg.Connection[Any], name: str, old: str) -> None:
    """Remove the marks: the successor is complete. It stays closed until it was compared."""
    database = databases(connection).get(name)
    if database is None or UNFINISHED not in database.settings:
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
    """Drop the database of this name if isa created it. After a lost rename it is still the old database."""
    all_databases = databases(connection)
    created_here = name in all_databases and UNFINISHED in all_databases[name].settings
    if name in all_databases and (created_here or _predecessor(all_databases, name)):
        connection.execute(statement("ALTER DATABASE {} IS_TEMPLATE false", name))
        connection.execute(statement("DROP DATABASE IF EXISTS {} (FORCE)", name))


def _predecessor(all_databases: dict[str, Database], name: str) -> str:
    """The renamed database whose successor has this name; "" if there is none."""
    candidates = (
        old_name
        for old_name, database in all_databases.items()
        if database.settings.get(SUCCESSOR) == name
    )
    return max(candidates, default="")


def _mark(connection: psycopg.Connection[Any], name: str, setting: LiteralString, to: str) -> None:
    text = sql.SQL("ALTER DATABASE {} SET {} = {}")
    parts = (sql.Identifier(name), sql.Identifier(*setting.split(".")), sql.Literal(to))
    connection.execute(text.format(*parts))


def _unmark(connection: psycopg.Connection[Any], name: str, setting: LiteralString) -> None:
    text = sql.SQL("ALTER DATABASE {} RESET {}")
    connection.execute(text.format(sql.Identifier(name), sql.Identifier(*setting.split("."))))
