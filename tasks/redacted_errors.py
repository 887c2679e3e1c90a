"""Redacts what is sent to Prefect, which stores all text unredacted and shows it to everyone with UI access."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from config.process_environment import clean_process
from errors import PermanentError
from redaction import install, shown


@contextmanager
def redacted_errors() -> Iterator[None]:
    """Wrap the body of a flow or task: its log lines and its final error are lines without a secret.

    Prefect builds the message of a failed state from the error's text. The error's class is kept if its text can be
    replaced, because retries depend on the class.
    """
    clean_process()
    install()
    try:
        yield
    except Exception as exc:
        said = shown(str(exc))
        if said != str(exc):
            exc.args = tuple(shown(part) if isinstance(part, str) else part for part in exc.args)
        if said != str(exc):  # words that are not its arguments
            raise PermanentError(f"{type(exc).__name__}: {said}") from None
        raise


def completed(message: str) -> State[Any]:
    """A state for a run that succeeded."""
    return Completed(message=shown(message))


def failed(message: str) -> State[Any]:
    """A state for a run that failed."""
    return Failed(message=shown(message))


def cancelled(message: str) -> State[Any]:
    """A state for a run that a person refused."""
    return Cancelled(message=shown(message))
