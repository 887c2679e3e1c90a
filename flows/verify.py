"""Verify backups: the newest ones after every nightly backup, and a sample of older ones every week."""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.task_runners import ThreadPoolTaskRunner

from config.loading import load
from flows.parameters import EnvironmentName, PointInTime, SetIds, Sets
from operations.environment.environment import Environment
from operations.runner.context import RunContext
from operations.verify.proofs import choose, run_proofs, week
from tasks.cancellation import cancellable
from tasks.freshness import tell_freshness
from tasks.late import superseded
from tasks.logs import logged
from tasks.nodes import as_tasks
from tasks.pages.artifacts import keep_report
from tasks.pages.pictures import history_artifact
from tasks.pages.table import LiveTable, proofs_artifact
from tasks.redacted_errors import completed, failed, redacted_errors

RUNNER: Any = ThreadPoolTaskRunner(max_workers=8)


@flow(
    name="verify-restores",
    flow_run_name="verify-{environment}",
    task_runner=RUNNER,
    persist_result=False,
)
def verify_restores(
    environment: EnvironmentName,
    backups: SetIds | None = None,
    only: Sets | None = None,
    which: Literal["latest", "due", "all", "sample"] = "latest",
    at: PointInTime = "",
) -> State[Any]:
    """Restore backups into scratch engines and compare the restored data with what the source held.

    Args:
        environment: name of a settings file, `production`.
        backups: ids of backups; if left out, those that `which` selects.
        only: components; all if left out.
        which: `latest`, the newest backup of each component; `due`, the newest if it has no verdict yet; `all`;
            `sample`, an older one of each component, a different one every week.
        at: if given, a scratch engine recovers to this point: a time with its UTC offset, `2026-11-29T17:59:30Z`, or
            an LSN, `0/3000028`. `only` must be postgresql.
    """
    with cancellable(), redacted_errors(), logged():
        if over := superseded():
            return completed(over)
        settings = load(environment)
        env = Environment(settings).open_store()
        verify = settings.verify
        words = f"Verification of {environment}"
        with LiveTable(f"verify-{environment}", words, counting=True) as table:
            report = run_proofs(
                env,
                RunContext(f"flow run {runtime.flow_run.name}", publish=table.publish),
                choose(env, backups or (), only or (), which, week(), at),
                start=as_tasks("verify", verify.attempts, verify.retry_delay_seconds),
            )
        keep_report(report.document(), f"verify-{environment}")
        proofs_artifact(report, environment)
        history_artifact(env)
        tell_freshness(env)
    if report.state == "failed":
        return failed(report.summary)
    return completed(report.summary)
