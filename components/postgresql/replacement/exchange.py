"""Replaces the databases that every server has (`postgres`, `template1`) by those of a backup, in one transaction.

Servers, failover managers and proxies use `postgres` all the time, so it can be neither missing nor closed. The
successor is created and filled under another name. Then both names change in one transaction. A killed run leaves the
old database unchanged, and a closed database with `__unfinished_` in its name.

A rename locks the database, so new clients wait. It waits up to 5 s for existing sessions (`CountOtherDBBackends` in
src/backend/storage/ipc/procarray.c); a second session ends those.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import sql

from components.access import Access
from components.postgresql.catalog.properties import Properties, restore_properties
from components.postgresql.client import MAINTENANCE, SUPERUSER, at_primary
from components.postgresql.replacement.aside import (
    aside_name,
    close_unfinished,
    databases,
    end_sessions,
    reopen,
    statement,
    unmark_unfinished,
)
from errors import IsaError, TemporaryError

ALWAYS_THERE = (SUPERUSER, MAINTENANCE)
RENAME_SECONDS, END_PAUSE = 30.0, 0.1
READ_ONLY = "ALTER DATABASE {} SET default_transaction_read_only = on"


def beside(name: str) -> str:
    """The database to connect to while another one is replaced."""
    return SUPERUSER if name == MAINTENANCE else MAINTENANCE


@contextmanager
def successor(
    access: Access,
    name: str,
    properties: Properties | None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[str, str]]:
    """Create an empty database, which replaces the old one when the block ends without an error.

    Args:
        access: addresses and credentials.
        name: name of the old database.
        properties: properties of the new database.
        clock: monotonic seconds.

    Yields:
        The name of the new database for now, and the later name of the old one.

    Raises:
        TemporaryError: the old database is always in use; nothing has changed.
    """
    new, old = aside_name(name, "unfinished"), aside_name(name, "before")
    with at_primary(access, beside(name)) as connection:
        connection.execute(statement("CREATE DATABASE {} TEMPLATE template0", new))
        limit = properties.connection_limit if properties else None
        close_unfinished(connection, new, limit)
    try:
        yield new, old
        with at_primary(access, beside(name)) as connection:
            if properties is not None:
                restore_properties(connection, new, properties)
            connection.execute(statement(READ_ONLY, new))  # until it was compared
            reopen(connection, new)
            with _sessions_ended(access, name):
                deadline = clock() + RENAME_SECONDS
                while not _exchanged(connection, name, new, old):
                    if clock() > deadline:
                        raise TemporaryError(
                            f"database {name} has connections all the time: nothing was changed"
                        )
    except BaseException:
        _drop(access, name, new)
        raise


def _exchanged(connection: psycopg.Connection[Any], name: str, new: str, old: str) -> bool:
    """Whether both have their new names now; if not, both are as they were."""
    try:
        with connection.transaction():
            connection.execute(statement("ALTER DATABASE {} RENAME TO {}", name, old))
            connection.execute(statement("ALTER DATABASE {} RENAME TO {}", new, name))
            unmark_unfinished(connection, name)
            for one, template in ((old, False), (name, name == MAINTENANCE)):
                text = sql.SQL("ALTER DATABASE {} IS_TEMPLATE {}")
                connection.execute(text.format(sql.Identifier(one), sql.Literal(template)))
    except psycopg.errors.ObjectInUse:
        return False
    return True


@contextmanager
def _sessions_ended(access: Access, name: str) -> Iterator[None]:
    """End sessions of a database, again and again, while the block runs."""
    done = threading.Event()

    def end() -> None:
        with suppress(IsaError), at_primary(access, beside(name)) as connection:
            while not done.wait(END_PAUSE):
                end_sessions(connection, name)

    ending = threading.Thread(target=end, name="end sessions", daemon=True)
    ending.start()
    try:
        yield
    finally:
        done.set()
        ending.join()


def _drop(access: Access, name: str, new: str) -> None:
    """Drop a successor that was not finished; where there is no primary it stays, closed."""
    try:
        with at_primary(access, beside(name)) as connection:
            if new in databases(connection):
                connection.execute(statement("ALTER DATABASE {} IS_TEMPLATE false", new))
                connection.execute(statement("DROP DATABASE {} (FORCE)", new))
    except IsaError:
        return
