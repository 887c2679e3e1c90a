from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any
from uuid import uuid4

import pytest
from prefect.futures import PrefectConcurrentFuture
from prefect.states import Completed, Crashed

from cluster.dag import Dag
from operations.runner.walk import INSTALLED, NodeResult
from tasks import nodes
from tasks.nodes import as_tasks

GOOD = NodeResult("redis", INSTALLED)


class Submitted:
    """What Prefect makes of a function: its future, and nobody to run it."""

    def __init__(self) -> None:
        self.thread: Future[Any] = Future()
        self.future = PrefectConcurrentFuture[Any](uuid4(), self.thread)

    def __call__(self, **_: Any) -> Callable[[Any], Submitted]:
        return lambda function: self

    def submit(self, *_: Any, **__: Any) -> PrefectConcurrentFuture[Any]:
        return self.future


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Submitted:
    made = Submitted()
    monkeypatch.setattr(nodes, "task", made)
    return made


@pytest.fixture
def heard(task: Submitted) -> list[Any]:
    """What the walk hears of the node's end."""
    heard: list[Any] = []
    begin = as_tasks("deploy-node", 1, 0.0)(Dag(["redis"]), lambda node: GOOD)
    begin("redis", heard.append)
    return heard


def test_the_walk_hears_how_a_node_ended(task: Submitted, heard: list[Any]) -> None:
    task.thread.set_result(Completed(data=GOOD))
    assert heard == [GOOD]


@pytest.mark.parametrize("cause", [SystemExit(1), RuntimeError("the server is away")])
def test_the_walk_hears_of_a_task_that_prefect_has_no_state_of(
    task: Submitted, heard: list[Any], cause: BaseException
) -> None:
    task.thread.set_exception(cause)
    assert heard == [cause]


def test_the_walk_hears_of_a_task_whose_result_cannot_be_had(
    task: Submitted, heard: list[Any]
) -> None:
    task.thread.set_result(Crashed(message="nobody knows why"))
    (end,) = heard
    assert isinstance(end, BaseException)
