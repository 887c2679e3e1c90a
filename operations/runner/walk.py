"""Walks a graph: each node starts as soon as all that it needs is done, and a failure stops only its dependants.

The caller decides where nodes run (threads of this process, Prefect tasks). This module decides when, and names
the outcomes: a node that failed, one *skipped* because it needs a failed one, one *not attempted* because
the run was stopped. Model: sqlmesh's `ConcurrentDAGExecutor`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cluster.command import STOP_GRACE_SECONDS
from cluster.dag import Dag
from operations.runner.context import RunContext

INSTALLED, UPGRADED, UNCHANGED = "installed", "upgraded", "unchanged"
FAILED, SKIPPED, NOT_ATTEMPTED = "failed", "skipped", "not-attempted"


@dataclass(frozen=True)
class NodeResult:
    """How a node ended.

    Attributes:
        name: of the node.
        outcome: installed, upgraded, unchanged, failed, skipped or not-attempted.
        seconds: from its start to its end, retries included; 0 if it never started.
        reason: why it did not simply succeed.
    """

    name: str
    outcome: str
    seconds: float = 0.0
    reason: str = ""

    @property
    def good(self) -> bool:
        """Whether dependants may start."""
        return self.outcome not in (FAILED, SKIPPED, NOT_ATTEMPTED)


Work = Callable[[str], NodeResult]
Done = Callable[[NodeResult | BaseException], None]
Start = Callable[[str, Done], None]


def walk(
    context: RunContext,
    graph: Dag,
    selected: set[str],
    start: Callable[[str, Done], None],
    *,
    max_parallel: int,
    report: Callable[[NodeResult], None] = lambda result: None,
) -> list[NodeResult]:
    """Run the selected nodes of a graph.

    Args:
        context: of the run.
        graph: all nodes and their needs; ties are taken in its order.
        selected: nodes to run; the others are reported as not attempted.
        start: begins a node without blocking and calls its second argument once, from any thread, at the end.
        max_parallel: nodes running at the same time.
        report: called for every node as soon as its outcome is known.

    Returns:
        One result a node, in the graph's order.

    If it is interrupted, it ends the running commands, and waits for the cleanup of the running nodes, before
    the caller releases what they depend on: a Lease, a fence.
    """
    under_way = _UnderWay(start)
    try:
        return _walk(context, graph, selected, under_way.start, max_parallel, report)
    except BaseException:
        deadline = time.monotonic() + STOP_GRACE_SECONDS
        context.cancellation.cancel()
        under_way.wait(deadline - time.monotonic())
        raise


def _walk(
    context: RunContext,
    graph: Dag,
    selected: set[str],
    start: Callable[[str, Done], None],
    max_parallel: int,
    report: Callable[[NodeResult], None],
) -> list[NodeResult]:
    results: dict[str, NodeResult] = {}
    began: dict[str, float] = {}
    ended: queue.SimpleQueue[tuple[str, NodeResult | BaseException]] = queue.SimpleQueue()
    order = graph.sorted()

    def settle(result: NodeResult) -> None:
        results[result.name] = result
        report(result)

    for node in order:
        if node not in selected:
            settle(NodeResult(node, NOT_ATTEMPTED, reason="not selected"))
    while len(results) < len(order):
        for node in order:
            if node in results or node in began:
                continue
            needs = [results.get(need) for need in graph.needs(node) if need in selected]
            broken = next((need for need in needs if need and not need.good), None)
            if broken:
                settle(NodeResult(node, SKIPPED, reason=f"needs {_root(broken, results)}"))
            elif all(needs) and len(began.keys() - results.keys()) < max_parallel:
                began[node] = context.clock()
                start(node, lambda end, node=node: ended.put((node, end)))  # type: ignore[misc]
        if len(results) == len(order):
            break
        node, end = ended.get()
        seconds = context.clock() - began[node]
        if isinstance(end, BaseException):
            end = NodeResult(node, FAILED, seconds, str(end) or type(end).__name__)
        settle(end)
    return [results[node] for node in order]


class _UnderWay:
    """Counts the running nodes."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._count = 0
        self._changed = threading.Condition()

    def start(self, node: str, done: Done) -> None:
        def ended(end: NodeResult | BaseException) -> None:
            done(end)
            self._add(-1)

        self._add(1)
        self._start(node, ended)

    def wait(self, seconds: float) -> None:
        """Wait until none is running; one that is too slow is abandoned."""
        with self._changed:
            self._changed.wait_for(lambda: not self._count, max(0.0, seconds))

    def _add(self, number: int) -> None:
        with self._changed:
            self._count += number
            self._changed.notify_all()


def _root(result: NodeResult, results: dict[str, NodeResult]) -> str:
    """The failed node behind a chain of skipped ones."""
    return result.reason.removeprefix("needs ") if result.outcome == SKIPPED else result.name
