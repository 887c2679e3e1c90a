"""A database that is put aside comes back with its name, whatever ends the making of its successor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from archive.backup.cleanup_journal import CleanupJournal
from components.access import Access
from components.postgresql.client import at_primary
from components.postgresql.replacement import aside as module
from components.postgresql.replacement.aside import (
    aside,
    close_unfinished,
    databases,
    reopen,
    statement,
    undo,
)
from errors import TemporaryError

from .conftest import Backups

pytestmark = pytest.mark.integration

LONG = "orders " + "ü" * 28  # 63 bytes
CREATE = "CREATE DATABASE {}"


class Broken(Exception):
    pass


@pytest.fixture
def access(backups: Backups) -> Iterator[Access]:
    with backups.access() as found:
        yield found


@pytest.fixture
def connection(access: Access) -> Iterator[psycopg.Connection[Any]]:
    with at_primary(access) as found:
        before = set(databases(found))
        yield found
        for name in set(databases(found)) - before:
            found.execute(statement("DROP DATABASE {} (FORCE)", name))


@pytest.fixture
def database(connection: psycopg.Connection[Any], access: Access) -> str:
    """One that takes seven sessions, and has a table."""
    connection.execute(statement(CREATE, LONG))
    connection.execute(statement("ALTER DATABASE {} CONNECTION LIMIT 7", LONG))
    with at_primary(access, LONG, "search_path=public") as inside:
        inside.execute("CREATE TABLE kept (n int)")
    return LONG


@pytest.fixture
def noted() -> list[list[Any]]:
    return []


@pytest.fixture
def cleanup(noted: list[list[Any]]) -> CleanupJournal:
    return CleanupJournal([], lambda held: noted.append(list(held)))


def is_the_old(access: Access, name: str) -> bool:
    with at_primary(access, name, "search_path=public") as inside:
        found = inside.execute("SELECT to_regclass('kept') IS NOT NULL").fetchone()
    return found == (True,)


def test_the_old_one_has_its_name_back_when_the_new_one_fails(
    access: Access,
    connection: psycopg.Connection[Any],
    database: str,
    cleanup: CleanupJournal,
    noted: list[list[Any]],
) -> None:
    with pytest.raises(Broken), aside(access, database, cleanup) as old:
        assert databases(connection)[old].limit == 7
        connection.execute(statement(CREATE, database))
        close_unfinished(connection, database)
        assert databases(connection)[database].limit == 0
        raise Broken
    reopen(connection, database)  # as the fence does
    assert databases(connection)[database] == module.Database(7, {})
    assert is_the_old(access, database)
    assert [len(held) for held in noted] == [1, 0]


def test_a_new_one_has_the_place_of_the_old_and_takes_as_many_sessions_as_it_was_made_with(
    access: Access, connection: psycopg.Connection[Any], database: str, cleanup: CleanupJournal
) -> None:
    with aside(access, database, cleanup) as old:
        connection.execute(statement(CREATE, database))
        close_unfinished(connection, database)
    undo(connection, database)  # finds nothing to do
    reopen(connection, database)
    found = databases(connection)
    assert found[database] == module.Database(-1, {})
    assert found[old] == module.Database(7, {})
    assert is_the_old(access, old)
    assert not is_the_old(access, database)


def test_what_a_killed_restore_left_is_undone_by_the_next(
    access: Access, connection: psycopg.Connection[Any], database: str, cleanup: CleanupJournal
) -> None:
    killed = aside(access, database, cleanup)  # never left
    killed.__enter__()
    connection.execute(statement(CREATE, database))
    close_unfinished(connection, database)
    undo(connection, database)
    reopen(connection, database)
    found = databases(connection)
    assert found[database] == module.Database(7, {})
    assert is_the_old(access, database)
    (half,) = [name for name in found if "__unfinished_" in name]
    assert found[half].limit == 0


def test_an_unfinished_one_without_predecessor_is_put_aside_too(
    connection: psycopg.Connection[Any],
) -> None:
    connection.execute(statement(CREATE, "fresh"))
    close_unfinished(connection, "fresh")
    undo(connection, "fresh")
    assert "fresh" not in databases(connection)


def test_where_the_renaming_was_lost_with_its_primary_the_old_one_is_not_dropped(
    access: Access, connection: psycopg.Connection[Any], database: str, cleanup: CleanupJournal
) -> None:
    with pytest.raises(Broken), aside(access, database, cleanup) as old:
        # as the standby has it that is promoted meanwhile
        connection.execute(statement("ALTER DATABASE {} RENAME TO {}", old, database))
        connection.execute(statement('ALTER DATABASE {} RESET "isa"."successor"', database))
        raise Broken
    assert is_the_old(access, database)


def test_it_waits_for_a_primary_to_give_the_name_back(
    access: Access,
    connection: psycopg.Connection[Any],
    database: str,
    cleanup: CleanupJournal,
    noted: list[list[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []

    def none(*_: Any) -> Any:
        if len(waited) < 3:
            raise TemporaryError("PostgreSQL has 0 reachable primaries")
        return at_primary(access)

    with pytest.raises(Broken), aside(access, database, cleanup, sleep=waited.append):
        connection.execute(statement(CREATE, database))
        close_unfinished(connection, database)
        monkeypatch.setattr(module, "at_primary", none)
        raise Broken
    assert len(waited) == 3
    assert is_the_old(access, database)
    assert noted[-1] == []


def test_without_any_primary_it_says_where_the_old_one_is_and_keeps_its_note(
    access: Access,
    connection: psycopg.Connection[Any],
    database: str,
    cleanup: CleanupJournal,
    noted: list[list[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]

    def none(*_: Any) -> Any:
        raise TemporaryError("PostgreSQL has 0 reachable primaries")

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with (
        pytest.raises(TemporaryError, match="__before_") as raised,
        aside(access, database, cleanup, clock=lambda: now[0], sleep=sleep),
    ):
        monkeypatch.setattr(module, "at_primary", none)
        raise Broken
    assert isinstance(raised.value.__cause__, Broken)
    assert len(noted[-1]) == 1
    undo(connection, database)
    assert is_the_old(access, database)
