"""Back up every engine and the platform itself: one flow, one task per component."""

from __future__ import annotations

from typing import Any

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.task_runners import ThreadPoolTaskRunner

from config.loading import load
from flows.parameters import EnvironmentName, Sets, Slot
from operations.backup.nightly import run_backups
from operations.backup.slot import interval_slot, night
from operations.environment.environment import Environment
from operations.runner.context import RunContext
from tasks.cancellation import cancellable
from tasks.late import superseded
from tasks.logs import logged
from tasks.nodes import as_tasks
from tasks.pages.artifacts import keep_report
from tasks.pages.table import LiveTable
from tasks.redacted_errors import completed, failed, redacted_errors

# How many are under way is decided by the settings; the runner must only never be the narrower one.
RUNNER: Any = ThreadPoolTaskRunner(max_workers=8)


@flow(
    name="backup-platform",
    flow_run_name="backup-{environment}",
    task_runner=RUNNER,
    persist_result=False,
)
def backup_platform(
    environment: EnvironmentName,
    only: Sets | None = None,
    slot: Slot | None = None,
    interval: bool = False,
) -> State[Any]:
    """Back up every component of an environment.

    Args:
        environment: name of a settings file, `production`.
        only: components; all if left out.
        slot: idempotency key, usually the date of the night, `2026-11-23`. Left out: the date for which the run was
            scheduled, in the time zone of the schedules. A component that already has a backup with this key is
            skipped. An empty text always takes new backups.
        interval: between two nightly backups: the key is the minute for which the run was scheduled, and a component
            that is being backed up already is skipped.
    """
    with cancellable(), redacted_errors(), logged():
        if over := superseded():
            return completed(over)
        settings = load(environment)
        backup = settings.backup
        # however late it starts: a night lasts until the next one is due
        planned = runtime.flow_run.scheduled_start_time
        own = interval_slot(planned) if interval else night(planned, settings.schedules.timezone)
        words, key = f"Backup of {environment}", f"backup-{environment}"
        if interval:  # the page of the nightly backup stays
            key = f"backup-interval-{environment}"
        with LiveTable(key, words, counting=True) as table:
            report = run_backups(
                Environment(settings).open_store(),
                RunContext(f"flow run {runtime.flow_run.name}", publish=table.publish),
                only=only or (),
                slot=own if slot is None else slot,
                start=as_tasks("back-up", backup.attempts, backup.retry_delay_seconds),
            )
        keep_report(report.document(), key)
    if report.state == "failed":
        return failed(report.summary)
    return completed(report.summary)
