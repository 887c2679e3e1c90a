"""What Prefect is told: it keeps every word for good, redacts nothing, and shows it to whoever opens the UI."""

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
    """Wrap the body of a flow or task: what it logs, and the error that it ends with, are lines without a secret.

    Prefect makes the message of a failed state of the error's own words. Its kind stays as it is where the words can be
    replaced, since retries go by the kind.
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
    """The run did what it was asked for."""
    return Completed(message=shown(message))


def failed(message: str) -> State[Any]:
    """It did not."""
    return Failed(message=shown(message))


def cancelled(message: str) -> State[Any]:
    """Somebody said no."""
    return Cancelled(message=shown(message))
