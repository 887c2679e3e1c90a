"""Asks again until something is so, or its time is over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from cluster.command import CANCELLATION

log = logging.getLogger(__name__)

T = TypeVar("T")


def polling(
    seconds: float,
    *,
    pause: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = CANCELLATION.sleep,
) -> Iterator[None]:
    """Go round until the time is over, at least once; who has what it waits for leaves the loop by itself.

    for _ in polling(30.0, pause=0.5):
        if ready():
            return
    raise TemporaryError("not ready after 30 s")

    Args:
        seconds: in which a round may begin.
        pause: seconds between two rounds.
        clock: monotonic seconds.
        sleep: waits; ends at once with `Cancelled` where the run is cancelled, unless another one is given.
    """
    deadline = clock() + seconds
    while True:
        yield
        if clock() >= deadline:
            return
        sleep(pause)


def retry(
    call: Callable[[], T],
    passes: Callable[[Exception], bool],
    seconds: float,
    *,
    pause: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = CANCELLATION.sleep,
) -> T:
    """Call again while it fails of something that may pass; behind the limit the last failure is raised.

    Args:
        call: what is wanted.
        passes: whether another call may end otherwise than with this failure.
        seconds: in which a call may begin.
        pause: seconds between two calls.
        clock: monotonic seconds.
        sleep: as `polling` has it.
    """
    failure: Exception | None = None
    for _ in polling(seconds, pause=pause, clock=clock, sleep=sleep):
        try:
            return call()
        except Exception as exc:
            if not passes(exc):
                raise
            failure = exc
            log.debug("%s; next attempt in %.1f s", exc, pause)
    assert failure is not None  # there is always one round
    raise failure
