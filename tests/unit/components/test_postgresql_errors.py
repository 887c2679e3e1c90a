"""What another attempt may heal is told from what it will not, by PostgreSQL's own classes of errors."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from components.postgresql.connection.failures import explained, first_error, without_statement
from components.postgresql.dumps.contents import Unreadable
from errors import PermanentError, TemporaryError


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("server closed the connection unexpectedly"),
        errors.AdminShutdown(),
        errors.CannotConnectNow(),
        errors.TooManyConnections(),
        errors.LockNotAvailable(),
        errors.SerializationFailure(),
        errors.InvalidCatalogName(),  # a database was dropped
        errors.UndefinedTable(),
    ],
)
def test_another_attempt_may_heal_it(error: psycopg.Error) -> None:
    with pytest.raises(TemporaryError, match="PostgreSQL, node-0"), explained("node-0"):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidPassword(),
        errors.InsufficientPrivilege(),
        errors.SyntaxError(),
        errors.DataCorrupted(),
        errors.ProgramLimitExceeded(),
    ],
)
def test_no_attempt_heals_it(error: psycopg.Error) -> None:
    with pytest.raises(PermanentError, match="SQLSTATE"), explained("node-0"):
        raise error


def test_a_table_that_stays_locked_costs_its_own_database_only() -> None:
    unreadable = Unreadable(lambda name: f"a table of {name} is locked")

    def read() -> None:
        raise errors.LockNotAvailable

    assert unreadable.try_to(read, "shop") is None
    assert unreadable.try_to(lambda: 1, "another") == 1
    assert unreadable.missing == ["database shop: a table of shop is locked"]


def test_what_a_program_said_is_told_from_its_first_error_on() -> None:
    notices = "".join(f"psql: NOTICE:  relation {n} does not exist, skipping\n" for n in range(200))
    said = (
        notices + "pg_restore: error: could not execute query: ERROR:  no such type\nCommand was: …"
    )
    assert first_error(said).startswith(
        "pg_restore: error: could not execute query: ERROR:  no such"
    )
    assert first_error(said).endswith("Command was: …")
    assert first_error("it fell silent") == "it fell silent"


def test_a_statement_that_was_refused_is_not_told_since_it_may_hold_a_password() -> None:
    said = (
        'pg_restore: error: could not execute query: ERROR:  server "away" does not exist\n'
        "Command was: CREATE USER MAPPING FOR a SERVER away OPTIONS (password 'secret')"
    )
    assert without_statement(said).endswith('server "away" does not exist')
