"""A node's row says when it began, so that a timeline drawn of it is true."""

from __future__ import annotations

from operations.runner.progress import CHECKING, DONE, GATE, WAITING, NodeProgress, Progress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_node_keeps_its_beginning_whatever_phases_and_attempts_follow() -> None:
    clock, last = Clock(), list[NodeProgress]()
    progress = Progress(
        ["redis", "nats"], lambda lines: last.__setitem__(slice(None), lines), clock
    )
    progress.update("redis", CHECKING)
    clock.now = 107.5
    progress.update("nats", CHECKING)
    clock.now = 120.0
    progress.update("redis", GATE)
    progress.update("redis", CHECKING, "again")
    clock.now = 130.0
    progress.ended("redis", "installed", 30.0)
    progress.ended("nats", "failed", 22.5)
    assert [(one.name, one.began, one.seconds) for one in last] == [
        ("redis", 0.0, 30.0),
        ("nats", 7.5, 22.5),
    ]
    assert {one.phase for one in last} == {DONE}


def test_a_node_that_never_began_has_no_beginning() -> None:
    clock, last = Clock(), list[NodeProgress]()
    progress = Progress(["redis"], lambda lines: last.__setitem__(slice(None), lines), clock)
    clock.now = 150.0
    progress.ended("redis", "skipped", 0.0, "needs nats")
    assert [(one.phase, one.began) for one in last] == [(WAITING, 0.0)]
