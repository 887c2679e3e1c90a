"""Lets a run notice its cancellation although the worker no longer listens.

The observer in the worker that signals a run's process waits for events of the server. After a server outage of about
half a minute it stops for good and logs that on the worker (prefect/_internal/observers.py, 3.8.8): a run that is
cancelled after that stays Cancelling, and its helm continues. So the run also polls its own state.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import httpx
from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.exceptions import Abort, PrefectException, TerminationSignal
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelled

from cluster.command import CANCELLATION

WATCH_SECONDS = 10.0  # a worker that listens ends the run within a second or two


@contextmanager
def cancellation_polled() -> Iterator[None]:
    """Wrap cancellable code: it gets SIGTERM, as from a worker, when the run is Cancelling and nothing else sent it."""
    if runtime.flow_run.id is None:
        yield
        return
    run = UUID(runtime.flow_run.id)
    signalled, ended = threading.Event(), threading.Event()
    threading.Thread(target=_watch, args=(run, signalled, ended), daemon=True).start()
    try:
        yield
    except TerminationSignal:
        if not signalled.is_set():
            raise
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run, Cancelled(message="Flow run was cancelled."))
        raise Abort from None  # its state is final: of the signal Prefect would make a crash
    finally:
        ended.set()


def _watch(run: UUID, signalled: threading.Event, ended: threading.Event) -> None:
    client, asked = get_client(sync_client=True), False
    while not ended.wait(WATCH_SECONDS):
        try:
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                state = client.read_flow_run(run).state
        except (httpx.HTTPError, PrefectException):
            continue
        cancelling = state is not None and state.is_cancelling()
        if cancelling and asked and not CANCELLATION.is_set():
            signalled.set()
            os.kill(os.getpid(), signal.SIGTERM)
            return
        asked = cancelling
