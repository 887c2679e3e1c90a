"""Turns a cancel in Prefect into an orderly end: child processes first, then the run."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import TerminationSignal
from prefect.tasks import Task

from cluster.command import CANCELLATION
from errors import TemporaryError
from tasks.broken_pipe import ignore_closed_stdout
from tasks.cancellation_poll import cancellation_polled

# Commands have 15 s of them, the rest is for fences and Leases. Prefect's own SIGKILL comes after 30 s
# (prefect/runner/_process_manager.py), and it takes some seconds more until it calls the run Cancelled.
LIMIT_SECONDS = 18.0


@contextmanager
def cancellable() -> Iterator[None]:
    """Wrap the body of a flow: on SIGTERM all running commands are ended before the flow is.

    The worker signals the flow's process group. Our commands run in sessions of their own, so only this handler can end
    them.
    """
    CANCELLATION.clear()
    ignore_closed_stdout()
    with cancellation_polled():
        try:
            with _from_the_signal_on():
                yield
        except (TerminationSignal, KeyboardInterrupt):
            CANCELLATION.cancel()
            raise


@contextmanager
def _from_the_signal_on() -> Iterator[None]:
    """Handle SIGTERM first: Prefect's exception is only raised when the main thread leaves its wait.

    Prefect's handler stays installed: only with it does Prefect call the run cancelled, and not crashed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal comes here
        return
    hears, told = socket.socketpair()
    told.setblocking(False)
    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(hears,), name="cancellation", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        told.close()


def _listen(signals: socket.socket) -> None:
    with signals:
        while numbers := signals.recv(64):
            if signal.SIGTERM in numbers:
                _end()


def _end() -> None:
    """End everything, and the process itself if it still runs at the limit: it then leaves what a killed one leaves."""
    deadline = time.monotonic() + LIMIT_SECONDS
    CANCELLATION.cancel()
    time.sleep(max(0.0, deadline - time.monotonic()))
    os._exit(128 + signal.SIGTERM)


def is_temporary(task: Task[..., object], task_run: TaskRun, state: State[object]) -> bool:
    """Prefect's `retry_condition_fn`: repeat after temporary errors, but never once the run is cancelled."""
    if CANCELLATION.is_set():
        return False
    try:
        state.result()
    except TemporaryError:
        return True
    except Exception:
        return False
    return False
