"""A scheduled run whose time is over: a later one of the same schedule is due, and does the work.

While no worker listens, Prefect keeps every run that a schedule makes, and hands all of them to the first worker that
comes back. Without this, three missed nights were three backups of today, each under its old date, one after the other.
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
from tasks.server import connect

# Prefect tags what a schedule made (`_generate_scheduled_flow_runs` in prefect/server/models/deployments.py).
SCHEDULED = "auto-scheduled"
NEWEST = (
    100  # runs to look at: of one deployment's schedules, the rarest is weekly beside a daily one
)


def superseded() -> str:
    """Why the run that asks has nothing to do any more; "" if it has, and for every run that no schedule made.

    A server that cannot be asked is no reason to leave the work undone.
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
        get_run_logger().warning("not known whether a later run is due: %s", exc)
        return ""
    return reason(own, due, now)


def reason(own: FlowRun, runs: Iterable[FlowRun], now: datetime) -> str:
    """Which later run of the same schedule is due, in words; "" if none is.

    Args:
        own: the run that asks.
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
        f"nothing was done: this run was planned for {planned:%Y-%m-%d %H:%M} UTC and started too late; "
        f"the one planned for {max(later):%Y-%m-%d %H:%M} UTC does the work"
    )
