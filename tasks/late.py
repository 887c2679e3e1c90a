"""Skips a scheduled run that started too late: a later one of the same schedule is due and does the work.

While no worker is running, Prefect keeps every run that a schedule creates, and hands all of them to the first worker
that comes back. Without this check, three missed nights were three backups of today, each under its old date.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from prefect import runtime
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.logging import get_run_logger

from errors import IsaError
from tasks.server.api import connect

# Prefect tags what a schedule made (`_generate_scheduled_flow_runs` in prefect/server/models/deployments.py).
SCHEDULED = "auto-scheduled"
NEWEST = (
    100  # runs to look at: of one deployment's schedules, the rarest is weekly beside a daily one
)


def superseded() -> str:
    """Return why the current run has nothing to do any more; "" if it has, and for every run without a schedule.

    If the server does not answer, the work is done.
    """
    if SCHEDULED not in runtime.flow_run.tags or runtime.deployment.id is None:
        return ""
    now = datetime.now(UTC)
    try:
        with connect() as client:
            # the server's own record of this run: in `runtime` its parameters have defaults filled in
            own = client.read_flow_run(UUID(runtime.flow_run.id))
            window = FlowRunFilterExpectedStartTime(
                after_=own.expected_start_time, before_=cast(Any, now)
            )
            due = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(
                    tags=FlowRunFilterTags(all_=[SCHEDULED]), expected_start_time=window
                ),
                deployment_filter=DeploymentFilter(
                    id=DeploymentFilterId(any_=[UUID(runtime.deployment.id)])
                ),
                sort=FlowRunSort.EXPECTED_START_TIME_DESC,
                limit=NEWEST,
            )
    except IsaError as exc:
        get_run_logger().warning("cannot tell whether a later run is due: %s", exc)
        return ""
    return reason(own, due, now)


def reason(own: FlowRun, runs: Iterable[FlowRun], now: datetime) -> str:
    """Return the later run of the same schedule that is due, as text; "" if there is none.

    Args:
        own: the current run.
        runs: scheduled runs of the same deployment, whose schedules differ in their parameters.
        now: the time.
    """
    planned = own.expected_start_time
    later = [
        run.expected_start_time
        for run in runs
        if run.expected_start_time is not None
        and planned is not None
        and planned < run.expected_start_time <= now
        and run.parameters == own.parameters
    ]
    if not later:
        return ""
    return (
        f"nothing was done: this run was scheduled for {planned:%Y-%m-%d %H:%M} UTC and started too late; the "
        f"one scheduled for {max(later):%Y-%m-%d %H:%M} UTC does the work"
    )
