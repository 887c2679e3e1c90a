"""The task behind each node of a run: a release to deploy, or a component to back up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture

from cluster.command import CANCELLATION
from cluster.dag import Dag
from operations.runner.walk import Done, NodeResult, Start, Work
from tasks.cancellation import is_temporary
from tasks.redacted_errors import redacted_errors


def as_tasks(name: str, attempts: int, retry_delay_seconds: float) -> Callable[[Dag, Work], Start]:
    """Start each node as a Prefect task, drawn in the UI after the nodes that it needed.

    Args:
        name: of the tasks, `deploy-node`.
        attempts: attempts for a node that fails for a temporary reason.
        retry_delay_seconds: pause between them, seconds.
    """

    def start(graph: Dag, work: Work) -> Start:
        # it closes over the work: as a parameter Prefect would walk through it, looking for futures
        @task(
            name=name,
            task_run_name="{node}",
            retries=attempts - 1,
            retry_condition_fn=is_temporary,
            cache_policy=NO_CACHE,  # a rerun resumes from what it observes
            persist_result=False,
        )
        def run_node(node: str) -> NodeResult:
            again = runtime.task_run.run_count > 1
            # here, since Prefect's own delay does not end when the run is cancelled
            CANCELLATION.sleep(retry_delay_seconds if again else 0.0)
            with redacted_errors():
                return work(node)

        futures: dict[str, PrefectFuture[Any]] = {}

        def begin(node: str, done: Done) -> None:
            needed = [futures[need] for need in graph.needs(node) if need in futures]
            future = run_node.submit(node, wait_for=needed, return_state=False)
            futures[node] = future
            future.add_done_callback(lambda ended: done(_end(ended)))

        return begin

    return start


def _end(future: PrefectFuture[Any]) -> NodeResult | BaseException:
    """Return how a task ended, without raising: an exception in a callback is lost, and the flow would wait forever.

    If a thread ended with SystemExit, Prefect has no state for it.
    """
    try:
        result = future.result(raise_on_failure=False)
    except BaseException as exc:
        return exc
    return result  # type: ignore[no-any-return]
