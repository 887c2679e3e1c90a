"""A wait asks at least once, pauses between two rounds, and ends in time."""

from __future__ import annotations

import pytest

from cluster.command import CANCELLATION, Cancelled
from cluster.polling import polling, retry


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def rounds(seconds: float, took: float = 0.0) -> tuple[int, list[float]]:
    clock, count = Clock(), 0
    for _ in polling(seconds, pause=2.0, clock=clock, sleep=clock.sleep):
        count += 1
        clock.now += took
    return count, clock.pauses


def test_the_last_round_is_the_first_that_ends_behind_the_limit() -> None:
    assert rounds(5.0) == (4, [2.0, 2.0, 2.0])


@pytest.mark.parametrize(("seconds", "took"), [(0.0, 0.0), (5.0, 60.0)])
def test_there_is_always_one_round(seconds: float, took: float) -> None:
    assert rounds(seconds, took) == (1, [])


def test_a_cancelled_run_waits_no_longer() -> None:
    CANCELLATION.cancel()
    try:
        with pytest.raises(Cancelled):
            for _ in polling(60.0, pause=60.0):
                pass
    finally:
        CANCELLATION.clear()


def test_what_may_pass_is_tried_again_and_anything_else_is_raised_at_once() -> None:
    clock = Clock()
    ends: list[Exception | None] = [TimeoutError("slow"), None]

    def call() -> str:
        if end := ends.pop(0):
            raise end
        return "done"

    def passes(exc: Exception) -> bool:
        return isinstance(exc, TimeoutError)

    assert retry(call, passes, 5.0, pause=1.0, clock=clock, sleep=clock.sleep) == "done"
    ends = [ValueError("wrong")]
    with pytest.raises(ValueError, match="wrong"):
        retry(call, passes, 5.0, pause=1.0, clock=clock, sleep=clock.sleep)
    ends = [TimeoutError(str(number)) for number in range(9)]
    with pytest.raises(TimeoutError, match="3"):  # the last of four
        retry(call, passes, 3.0, pause=1.0, clock=clock, sleep=clock.sleep)
