"""What PostgreSQL and its programs refuse, in the project's own terms, and what of their words may be told.

The words may quote a row (they go apart from the message, `said`), but never a statement, which may hold a password.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from errors import PermanentError, TemporaryError

ERROR = re.compile(r"\b(?:ERROR|FATAL|PANIC|error|fatal):")
# Classes of errors, and single ones, that another attempt may heal: connections, conflicts, resources, objects in use,
# an operator's intervention; a database or table that was dropped.
# https://www.postgresql.org/docs/18/errcodes-appendix.html
PASSING = ("08", "40", "53", "55", "57", "3D000", "42P01")


def passing(exc: psycopg.Error) -> bool:
    """Whether another attempt may heal it."""
    lost = isinstance(exc, psycopg.OperationalError) and not exc.sqlstate
    return lost or (exc.sqlstate or "").startswith(PASSING)


@contextmanager
def explained(who: str) -> Iterator[None]:
    """What the client raises, in the project's own terms: a class of error says no value of a row, its message may.

    Args:
        who: was asked.
    """
    try:
        yield
    except psycopg.Error as exc:
        kind = TemporaryError if passing(exc) else PermanentError
        what = f"SQLSTATE {exc.sqlstate}" if exc.sqlstate else "the connection broke off"
        raise kind(f"PostgreSQL, {who}: {what}", said=server_words(exc)) from exc


def server_words(exc: psycopg.Error) -> str:
    """What the server said, without the statement that it said it of: a role's has a password's verifier."""
    diag = exc.diag
    found = (diag.message_primary, diag.message_detail, diag.message_hint)
    return "; ".join(text for text in found if text) or str(exc)


def first_error(said: str) -> str:
    """What a client program said, from its first error on: notices and warnings may stand before it."""
    lines = said.splitlines()
    first = next((n for n, line in enumerate(lines) if ERROR.search(line)), 0)
    return "\n".join(lines[first:])


def without_statement(said: str) -> str:
    """What pg_restore said, without the statement that failed: those of subscriptions and user mappings have passwords.

    It begins at the start of a line: `warn_or_exit_horribly` in src/bin/pg_dump/pg_backup_archiver.c.
    """
    return said.split("\nCommand was:")[0]
