"""Replaces the databases that every server has (`postgres`, `template1`) by those of a backup, in one moment.

Servers, failover managers and proxies ask their questions in `postgres`, all the time: it cannot be away while its
successor is made, nor be closed. So the successor is made and filled under another name, and both names change in one
transaction. Until then nothing has changed, and a killed run leaves a closed database with `__unfinished_` in its name.

A rename locks the database, so that clients who connect wait, and waits up to 5 s for those who are there
(`CountOtherDBBackends` in src/backend/storage/ipc/procarray.c): in that time a second session ends theirs.
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
from components.postgresql.aside import (
    aside_name,
    close_unfinished,
    databases,
    end_sessions,
    reopen,
    statement,
    unmark_unfinished,
)
from components.postgresql.client import MAINTENANCE, SUPERUSER, at_primary
from components.postgresql.properties import Properties, restore_properties
from errors import IsaError, TemporaryError

ALWAYS_THERE = (SUPERUSER, MAINTENANCE)
RENAME_SECONDS, END_PAUSE = 30.0, 0.1
READ_ONLY = "ALTER DATABASE {} SET default_transaction_read_only = on"


def beside(name: str) -> str:
    """A database to be connected to while another one is replaced."""
    return SUPERUSER if name == MAINTENANCE else MAINTENANCE


@contextmanager
def successor(
    access: Access,
    name: str,
    properties: Properties | None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[str, str]]:
    """Make an empty database to be filled, which takes the place of the old one when the block ends well.

    Args:
        access: the way in.
        name: of the old one.
        properties: what the new one is as a whole.
        clock: monotonic seconds.

    Yields:
        The name that it is filled under, and the name under which the old one will be kept.

    Raises:
        TemporaryError: the old one is in use all the time; nothing has changed.
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
