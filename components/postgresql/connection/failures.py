"""Turns errors of PostgreSQL and its programs into the project's errors.

The server's message may quote a row, so it is passed separately (`said`). A statement is never passed on: it may have a
password.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from errors import PermanentError, TemporaryError

ERROR = re.compile(r"\b(?:ERROR|FATAL|PANIC|error|fatal):")
# Classes of errors, and single errors, that are temporary: connections, conflicts, resources, objects in use, an
# operator's intervention; a database or table that was dropped.
# https://www.postgresql.org/docs/18/errcodes-appendix.html
PASSING = ("08", "40", "53", "55", "57", "3D000", "42P01")


def passing(exc: psycopg.Error) -> bool:
    """Whether another attempt may succeed."""
    disconnected = isinstance(exc, psycopg.OperationalError) and not exc.sqlstate
    return disconnected or (exc.sqlstate or "").startswith(PASSING)


@contextmanager
def explained(source: str) -> Iterator[None]:
    """Turn the client's exceptions into the project's errors. The message has the error's class only.

    Args:
        source: the node or program, for the message.
    """
    try:
        yield
    except psycopg.Error as exc:
        kind = TemporaryError if passing(exc) else PermanentError
        failure = f"SQLSTATE {exc.sqlstate}" if exc.sqlstate else "the connection broke off"
        raise kind(f"PostgreSQL, {source}: {failure}", said=server_words(exc)) from exc


def server_words(exc: psycopg.Error) -> str:
    """The server's message without the statement: that of a role contains a password verifier."""
    diag = exc.diag
    parts = (diag.message_primary, diag.message_detail, diag.message_hint)
    return "; ".join(text for text in parts if text) or str(exc)


def first_error(output: str) -> str:
    """The output of a client program from its first error on, without earlier notices and warnings."""
    lines = output.splitlines()
    start = next((n for n, line in enumerate(lines) if ERROR.search(line)), 0)
    return "\n".join(lines[start:])


def without_statement(output: str) -> str:
    """The output of pg_restore without the failed statement: subscriptions and user mappings have passwords.

    The statement starts on a line of its own: `warn_or_exit_horribly` in src/bin/pg_dump/pg_backup_archiver.c.
    """
    return output.split("\nCommand was:")[0]
