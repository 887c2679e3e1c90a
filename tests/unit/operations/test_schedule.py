from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from cluster.command import CANCELLATION
from cluster.dag import Dag
from errors import PermanentError
from operations.runner.context import RunContext
from operations.runner.walk import Done, NodeResult, walk


def graph() -> Dag:
    dag = Dag()
    dag.add("storage")
    dag.add("namespace", ["storage"])
    for name in ("postgresql", "redis", "nats"):
        dag.add(name, ["namespace"])
    dag.add("minio", ["redis"])
    dag.add("emqx", ["minio"])
    return dag


class Nodes:
    """Nodes that end when told to, so that a test sees what runs beside what."""

    def __init__(self, failing: dict[str, BaseException] | None = None) -> None:
        self.failing = failing or {}
        self.running: set[str] = set()
        self.most = 0
        self.order: list[str] = []
        self._lock = threading.Lock()

    def start(self, node: str, done: Done) -> None:
        with self._lock:
            self.running.add(node)
            self.order.append(node)
            self.most = max(self.most, len(self.running))

        def end() -> None:
            with self._lock:
                self.running.discard(node)
            done(self.failing.get(node) or NodeResult(node, "installed", 1.0))

        threading.Timer(0.02, end).start()


def outcomes(results: list[NodeResult]) -> dict[str, str]:
    return {result.name: result.outcome for result in results}


def run(nodes: Nodes, selected: set[str] | None = None, parallel: int = 3) -> list[NodeResult]:
    return walk(
        RunContext("test"), graph(), selected or set(graph()), nodes.start, max_parallel=parallel
    )


def test_every_node_starts_after_all_that_it_needs() -> None:
    nodes = Nodes()
    run(nodes)
    for node in graph():
        assert all(
            nodes.order.index(need) < nodes.order.index(node) for need in graph().needs(node)
        )


def test_no_more_nodes_run_at_once_than_allowed_and_as_many_as_can() -> None:
    nodes = Nodes()
    run(nodes, parallel=2)
    assert nodes.most == 2


def test_one_at_a_time_is_the_strict_order() -> None:
    nodes = Nodes()
    run(nodes, parallel=1)
    assert nodes.order == graph().sorted()


def test_a_failure_skips_its_dependants_and_lets_the_others_finish() -> None:
    results = run(Nodes({"redis": PermanentError("no quorum")}))
    assert outcomes(results) == {
        "storage": "installed", "namespace": "installed", "postgresql": "installed",
        "redis": "failed", "nats": "installed", "minio": "skipped", "emqx": "skipped",
    }  # fmt: skip
    reasons = {result.name: result.reason for result in results}
    assert reasons["redis"] == "no quorum"
    assert reasons["minio"] == reasons["emqx"] == "needs redis"


def test_what_was_not_chosen_is_not_attempted() -> None:
    nodes = Nodes()
    results = run(nodes, {"storage", "namespace", "nats"})
    assert nodes.order == ["storage", "namespace", "nats"]
    assert outcomes(results)["redis"] == "not-attempted"


def test_a_node_starts_as_soon_as_its_own_needs_are_done_not_when_a_whole_group_is() -> None:
    ends: dict[str, Callable[[], None]] = {}
    began = threading.Event()

    def start(node: str, done: Done) -> None:
        def end() -> None:
            done(NodeResult(node, "installed", 1.0))

        if node == "minio":
            began.set()
        if node in ("postgresql", "nats"):
            ends[node] = end  # slow siblings of redis
        else:
            threading.Timer(0.01, end).start()

    thread = threading.Thread(
        target=lambda: walk(RunContext("test"), graph(), set(graph()), start, max_parallel=9)
    )
    thread.start()
    assert began.wait(10), "minio needs redis only"
    for end in ends.values():
        end()
    thread.join(10)
    assert not thread.is_alive()


def test_what_breaks_it_off_waits_for_the_nodes_under_way() -> None:
    ended: list[str] = []

    def begin(node: str, done: Done) -> None:
        def end() -> None:
            ended.append(node)
            done(NodeResult(node, "installed"))

        threading.Timer(0.3 if node == "nats" else 0.01, end).start()

    def stop(result: NodeResult) -> None:
        if result.name == "redis":
            raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            walk(RunContext("test"), graph(), set(graph()), begin, max_parallel=3, report=stop)
        assert "nats" in ended
        assert "minio" not in ended
    finally:
        CANCELLATION.clear()
