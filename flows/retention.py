"""Retention: lists which backups and orphaned objects may be removed, and removes them if the parameters say so."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from config.loading import load
from flows.parameters import EnvironmentName, Sets
from operations.backup.retention import apply_retention, extend_locks, plan_retention
from operations.backup.retention_report import RetentionReport
from operations.environment.environment import Environment
from tasks.cancellation import cancellable
from tasks.late import superseded
from tasks.logs import logged
from tasks.pages.artifacts import keep_report
from tasks.pages.table import retention_artifact
from tasks.redacted_errors import completed, failed, redacted_errors


@flow(name="retention", flow_run_name="retention-{environment}", persist_result=False)
def retention(
    environment: EnvironmentName, components: Sets | None = None, apply: bool = False
) -> State[Any]:
    """List the backups that may be removed; the last verified backup of each component is always kept.

    The object locks of kept backups are extended first in any case, if `backup.object_lock_days` is set. A manifest
    that cannot be read fails the run: all backups of its component stay, and other components are handled as usual.

    Args:
        environment: name of a settings file, `production`.
        components: whose backups; all if left out.
        apply: whether to remove them; otherwise they are only listed.
    """
    with cancellable(), redacted_errors(), logged():
        if over := superseded():
            return completed(over)
        env = Environment(load(environment)).open_store()
        plan = plan_retention(env, components or ())
        extension = extend_locks(env, plan)
        held = apply_retention(env, plan) if apply else {}
        report = RetentionReport(plan, applied=apply, extension=extension, held=held)
        retention_artifact(plan, environment, applied=apply, held=held)
        keep_report(report.document(), f"retention-{environment}")
    return failed(report.summary) if report.problems else completed(report.summary)
