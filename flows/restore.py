"""Restore into the live platform: one component from a backup, or all of them after a disaster."""

from __future__ import annotations

import time
from typing import Any

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.task_runners import ThreadPoolTaskRunner

from config.loading import load
from flows.parameters import Confirmation, EnvironmentName, PointInTime, SetId, Units
from operations.environment.environment import Environment
from operations.restore.plan import plans_of
from operations.restore.report import document
from operations.restore.restore import run_restores
from operations.runner.context import RunContext
from tasks.cancellation import cancellable
from tasks.logs import logged
from tasks.nodes import as_tasks
from tasks.pages.artifacts import keep_report
from tasks.pages.table import LiveTable, restore_plan_artifact
from tasks.redacted_errors import completed, failed, redacted_errors

RUNNER: Any = ThreadPoolTaskRunner(max_workers=8)


@flow(
    name="restore-component",
    flow_run_name="restore-{environment}",
    task_runner=RUNNER,
    persist_result=False,
)
def restore_component(
    environment: EnvironmentName,
    confirm: Confirmation,
    backup: SetId | None = None,
    units: Units | None = None,
    other_cluster: bool = False,
    safety_backup: bool = True,
    at: PointInTime = "",
) -> State[Any]:
    """Replace live data by a backup. The current data is backed up first.

    Args:
        environment: name of a settings file, `production`.
        confirm: typed by hand: name of the component to replace, or of the environment if `backup` is left out.
        backup: id of the backup. Left out: the newest verified backup of every engine, for use after a disaster.
        units: databases, streams, buckets or collections; all if left out.
        other_cluster: whether to accept backups of another cluster of this environment, one that no longer exists.
        safety_backup: whether to back up the current data first; turn it off only for an empty platform.
        at: restores PostgreSQL to this point between two backups; `backup` is left out then. A time with its UTC
            offset, `2026-11-29T17:59:30Z`, or an LSN, `0/3000028`.
    """
    with cancellable(), redacted_errors(), logged():
        env = Environment(load(environment)).open_store()
        if at and backup:
            return failed("`at` and `backup` exclude each other; nothing was changed")
        plans = plans_of(env, backup or "", units or (), other_cluster=other_cluster, at=at)
        wanted = plans[0].manifest.component if backup or at else environment
        if confirm != wanted:
            return failed(f"not confirmed: `confirm` must be {wanted!r}; nothing was changed")
        restore_plan_artifact(plans, environment)
        began = time.monotonic()
        words = f"Restore into {environment}"
        with LiveTable(f"restore-{environment}", words, counting=True) as table:
            reports = run_restores(
                env,
                RunContext(f"flow run {runtime.flow_run.name}", publish=table.publish),
                plans,
                start=as_tasks("restore", 1, 0.0),  # what is half replaced, a person looks at
                safety=safety_backup,
            )
        found = document(reports, time.monotonic() - began)
        keep_report(found, f"restore-{environment}")
    if found.state == "failed":
        return failed(found.message)
    return completed(found.message)
