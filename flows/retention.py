"""Retention: lists which backups and orphaned objects may be removed, and removes them if the parameters say so."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from config.loading import load
from flows.parameters import EnvironmentName, Sets
from operations.backup.retention import apply_retention, extend_locks, plan_retention
from operations.environment.environment import Environment
from tasks.cancellation import cancellable
from tasks.late import superseded
from tasks.logs import logged
from tasks.redacted_errors import completed, failed, redacted_errors
from tasks.table import retention_artifact


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
        retention_artifact(plan, environment, applied=apply, held=held)
    going = len(plan.going) - len(held)
    words = f"{going} of {len(plan.verdicts)} backups {'removed' if apply else 'may be removed'}"
    words += f"; {len(held)} cannot be removed yet" if held else ""
    if extension.until is not None:
        words += f"; {extension.extended} objects locked until {extension.until:%Y-%m-%d %H:%M} UTC"
    problems = [plan.problem] if plan.problem else []
    if extension.refused:
        why = "; ".join(f"{name}: {reason}" for name, reason in extension.refused.items())
        problems.append(f"object locks that could not be extended: {why}")
    return failed(". ".join([words, *problems])) if problems else completed(words)
