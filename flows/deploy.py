"""Deploy: storage classes → namespace and RBAC → seven engines, as one flow whose tasks are the nodes of the graph."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from components import COMPONENTS
from config.loading import load
from config.models import Component
from flows.parameters import EnvironmentName
from operations.deploy.run import run_deploy
from operations.environment.environment import Environment
from operations.health.status import read_status
from operations.runner.context import RunContext
from tasks.cancellation import cancellable
from tasks.logs import logged
from tasks.nodes import as_tasks
from tasks.pages.artifacts import keep_report
from tasks.pages.pictures import outcome_artifact
from tasks.pages.table import LiveTable, plan_artifact, status_artifact
from tasks.redacted_errors import completed, failed, redacted_errors

Node = Literal["storage-classes", "namespace", Component]
Nodes = Annotated[list[Node], Field(max_length=len(get_args(Node)))]
# How many nodes are under way is decided by the settings; the runner must only never be the narrower one.
RUNNER: Any = ThreadPoolTaskRunner(max_workers=16)


@flow(
    name="deploy-platform",
    flow_run_name="deploy-{environment}",
    task_runner=RUNNER,
    persist_result=False,
)
def deploy_platform(environment: EnvironmentName, only: Nodes | None = None) -> State[Any]:
    """Bring the platform of an environment to its declared state.

    Args:
        environment: name of a settings file, `production`.
        only: nodes to deploy, with what they need; all if left out.
    """
    with cancellable(), redacted_errors(), logged():
        env = Environment(load(environment)).open_releases()
        deploy = env.settings.deploy
        with LiveTable(f"deploy-{environment}", f"Deploy of {environment}") as table:
            report = run_deploy(
                env,
                RunContext(f"flow run {runtime.flow_run.name}", publish=table.publish),
                only=only or (),
                start=as_tasks("deploy-node", deploy.attempts, deploy.retry_delay_seconds),
                show_plan=lambda plan: plan_artifact(plan, env.graph, environment),
            )
        keep_report(report.document(), f"deploy-{environment}")
        if table.lines:
            outcome_artifact(table.lines, env.graph, environment)
        status_artifact(read_status(env, [n for n in only or () if n in COMPONENTS]), environment)
    if report.state == "failed":
        return failed(report.summary)
    return completed(report.summary)
