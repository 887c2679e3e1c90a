"""Runs what has a line of its own in the table: a component's backup, a backup's proof, a component's restore.

Each line ends with a result, whatever happens. A line that fails stops no other; one whose node is begun again after a
temporary error is not run again if it has its result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

from cluster.command import Cancelled
from cluster.dag import Dag
from errors import IsaError
from operations.runner.context import RunContext
from operations.runner.progress import DONE, Progress
from operations.runner.walk import NodeResult, Start, Work, walk

Result = TypeVar("Result")


def run_lines(
    context: RunContext,
    nodes: Mapping[str, Iterable[str]],
    work: Callable[[RunContext, str], Result],
    *,
    phase: str,
    progress: Progress,
    start: Callable[[Dag, Work], Start],
    max_parallel: int,
    lost: Callable[[str, NodeResult], Result],
    settle: Callable[[str, Result, float], None],
) -> dict[str, Result]:
    """Run nodes beside each other, and the lines of each node one after another.

    Args:
        context: of the run; the work gets one whose notes go to its line.
        nodes: name → names of its lines.
        work: of one line.
        phase: that a line is in while it is worked on.
        progress: the table.
        start: how a node is begun (a thread, a Prefect task).
        max_parallel: nodes running at the same time.
        lost: the result of a line whose node ended without one.
        settle: shows how a line ended: its name, its result, its seconds with all attempts.

    Returns:
        One result a line.
    """
    graph, results = Dag(nodes), dict[str, Result]()

    def keep(line: str, result: Result, seconds: float) -> None:
        results[line] = result
        settle(line, result, seconds)

    def run_node(node: str) -> NodeResult:
        failure: IsaError | None = None
        for line in nodes[node]:
            if line in results:  # of an earlier attempt
                continue
            tell = partial(progress.update, line, phase)
            tell("")
            try:
                result = work(context.telling(tell), line)
            except Cancelled:
                raise
            except IsaError as exc:  # the other lines are not to blame
                failure = failure or exc
            else:
                keep(line, result, progress.seconds(line))
        if failure is not None:
            raise failure
        return NodeResult(node, DONE)

    def report(ended: NodeResult) -> None:
        for line in nodes[ended.name]:
            if line not in results:
                keep(line, lost(line, ended), ended.seconds)

    progress.show()
    walk(
        context,
        graph,
        set(graph),
        start(graph, run_node),
        max_parallel=max_parallel,
        report=report,
    )
    return results
