"""The task behind each node of the deploy graph."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.tasks import Task

from config.models import DeploySettings
from operations.deploy import Deployer
from operations.run import Start
from operations.schedule import Done, NodeResult
from tasks.cancellation import is_temporary


def node_task(deployer: Deployer, settings: DeploySettings) -> Task[[str], NodeResult]:
    """Make the task of one run.

    It closes over the deployer: as a parameter Prefect would walk through it, looking for futures.
    """

    @task(
        name="deploy-node",
        task_run_name="{node}",
        retries=settings.attempts - 1,
        retry_delay_seconds=settings.retry_delay_seconds,
        retry_condition_fn=is_temporary,
        cache_policy=NO_CACHE,  # a rerun resumes from what it observes
        persist_result=False,
    )
    def deploy_node(node: str) -> NodeResult:
        return deployer.deploy(node)

    return deploy_node


def as_tasks(deployer: Deployer) -> Start:
    """Begin each node as a Prefect task, drawn in the UI behind the nodes that it needed."""
    graph = deployer.platform.graph
    deploy_node = node_task(deployer, deployer.platform.settings.deploy)
    futures: dict[str, PrefectFuture[Any]] = {}

    def begin(node: str, done: Done) -> None:
        needed = [futures[need] for need in graph.needs(node) if need in futures]
        future = deploy_node.submit(node, wait_for=needed, return_state=False)
        futures[node] = future
        future.add_done_callback(lambda ended: done(ended.result(raise_on_failure=False)))

    return begin
