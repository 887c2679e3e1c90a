"""Turns Prefect's cancel into an orderly end: children first, then the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import TerminationSignal
from prefect.tasks import Task

from cluster.command import CANCELLATION
from errors import TemporaryError


@contextmanager
def cancellable() -> Iterator[None]:
    """Wrap the body of a flow: on SIGTERM all running commands are ended before the flow is.

    Prefect gives 30 s from SIGTERM to SIGKILL (prefect/runner/_process_manager.py); `Cancellation.cancel` takes 20 s
    of them at most. The worker signals the flow's process group, and our commands are in sessions of their own, so they
    hear of it here only.
    """
    CANCELLATION.clear()
    try:
        yield
    except (TerminationSignal, KeyboardInterrupt):
        CANCELLATION.cancel()
        raise


def is_temporary(task: Task[..., object], task_run: TaskRun, state: State[object]) -> bool:
    """Prefect's `retry_condition_fn`: try again after temporary errors, and never once the run is cancelled."""
    if CANCELLATION.is_set():
        return False
    try:
        state.result()
    except TemporaryError:
        return True
    except Exception:
        return False
    return False
