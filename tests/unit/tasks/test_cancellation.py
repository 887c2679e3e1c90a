from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prefect.exceptions import TerminationSignal

from cluster.command import CANCELLATION, Cancelled
from tasks import cancellation
from tasks.cancellation import cancellable


@pytest.fixture
def worker() -> Iterator[None]:
    """Prefect's handler, as a worker's process has it."""

    def raise_it(number: int, frame: Any) -> None:
        raise TerminationSignal(signal=number)

    before = signal.signal(signal.SIGTERM, raise_it)
    yield
    signal.signal(signal.SIGTERM, before)
    CANCELLATION.clear()


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Codes with which the process would have ended itself."""
    codes: list[int] = []
    ended = threading.Event()

    def leave(code: int) -> None:
        codes.append(code)
        ended.set()

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(cancellation, "LIMIT_SECONDS", 0.3)
    yield codes
    assert ended.wait(20)


def test_what_the_flow_waits_for_hears_of_the_cancel_before_the_flow(
    worker: None, exits: list[int]
) -> None:
    with pytest.raises(TerminationSignal), cancellable(), ThreadPoolExecutor(1) as pool:
        slept = pool.submit(CANCELLATION.sleep, 60)
        os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Cancelled):
        slept.result(0)


def test_a_process_that_hangs_ends_itself(worker: None, exits: list[int]) -> None:
    with pytest.raises(TerminationSignal), cancellable():
        os.kill(os.getpid(), signal.SIGTERM)
    deadline = time.monotonic() + 20
    while not exits and time.monotonic() < deadline:
        time.sleep(0.01)
    assert exits == [143]


def test_nothing_is_left_behind_and_prefects_handler_stays(worker: None) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with cancellable():
        assert signal.getsignal(signal.SIGTERM) is before  # or Prefect calls the run crashed
        assert any(thread.name == "cancellation" for thread in threading.enumerate())
    assert signal.set_wakeup_fd(-1) == -1
    deadline = time.monotonic() + 20
    while any(thread.name == "cancellation" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
