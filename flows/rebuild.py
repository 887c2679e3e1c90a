"""Rebuild a component from scratch, after an approval and a freshly verified backup; one task per step."""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.task_runners import ThreadPoolTaskRunner

from config.loading import load
from config.models import Component
from flows.parameters import EnvironmentName, RestoreSource
from operations.environment.environment import Environment
from operations.rebuild.plan import plan_rebuild
from operations.rebuild.rebuild import run_rebuild
from operations.runner.context import RunContext
from operations.state.rebuild_state import Policy
from tasks.approval import ask
from tasks.cancellation import cancellable
from tasks.logs import logged
from tasks.nodes import as_tasks
from tasks.pages.artifacts import keep_report
from tasks.pages.table import LiveTable, rebuild_plan_artifact
from tasks.redacted_errors import cancelled, completed, failed, redacted_errors

RUNNER: Any = ThreadPoolTaskRunner(max_workers=2)


@flow(
    name="rebuild-component",
    flow_run_name="rebuild-{component}-{environment}",
    task_runner=RUNNER,
    persist_result=False,
)
def rebuild_component(
    environment: EnvironmentName,
    component: Component,
    volumes: Literal["new", "keep"] = "new",
    restore: RestoreSource = "fresh",
    final_backup: bool = True,
) -> State[Any]:
    """Rebuild a component from scratch. Needs an approval and a freshly verified backup.

    Args:
        environment: name of a settings file, `production`.
        component: to rebuild.
        volumes: `new` creates new volumes and retains the old ones, `keep` reuses the old ones.
        restore: `fresh` for the backup that this run takes, `none`, or the id of a backup.
        final_backup: whether a backup is taken and verified first; turn it off only for an engine that does not answer.
    """
    with cancellable(), redacted_errors(), logged():
        settings = load(environment)
        env = Environment(settings).open_releases().open_store()
        policy = Policy(component, volumes, restore, final_backup)
        plan = plan_rebuild(env, policy)
        text = rebuild_plan_artifact(plan, environment)
        if plan.blocked:
            return failed(f"nothing was changed: {'; '.join(plan.blocked)}")
        answer = ask(text, settings.rebuild.approval_minutes)
        if answer is None:
            return failed("the approval has expired; nothing was changed")
        who = f"{answer.name} ({answer.ticket})"
        if answer.decision != "approve":
            return cancelled(f"refused by {who}; nothing was changed")
        if plan_rebuild(env, policy).digest != plan.digest:
            return failed(
                f"the plan has changed since {who} approved it; nothing was changed: start the rebuild again"
            )
        deploy = settings.deploy
        words = f"Rebuild of {component}, approved by {who}"
        with LiveTable(f"rebuild-{environment}", words, counting=True) as table:
            report = run_rebuild(
                env,
                RunContext(
                    f"flow run {runtime.flow_run.name}, approved by {who}", publish=table.publish
                ),
                plan,
                start=as_tasks("rebuild-step", deploy.attempts, deploy.retry_delay_seconds),
            )
        keep_report(report.document(), f"rebuild-{environment}")
    if report.state == "failed":
        return failed(report.summary)
    return completed(f"{report.summary}; approved by {who}")
