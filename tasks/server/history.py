"""Reads the results of the last deploys from the Prefect server: their runs, and the table of each."""

from __future__ import annotations

import json
from typing import Any

from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterName,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL

from errors import PermanentError
from operations.report.report import DeployRun
from operations.runner.progress import NodeProgress
from tasks.pages.markdown import plain_cells
from tasks.server.api import connect

FLOW = "deploy-platform"
RUNS = 10


def last_deploys(environment: str) -> tuple[DeployRun, ...]:
    """Return the last deploys of an environment, the newest first.

    Args:
        environment: name.

    Raises:
        PermanentError: no server is configured, or it refuses.
        TemporaryError: it does not answer.
    """
    if not PREFECT_API_URL.value():
        raise PermanentError("no Prefect server is configured: set PREFECT_API_URL")
    with connect() as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])),
            # a run gets its name when it starts; one that was refused has none of ours
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[f"deploy-{environment}"])),
            sort=FlowRunSort.START_TIME_DESC,
            limit=RUNS,
        )
        tables = client.read_artifacts(
            artifact_filter=ArtifactFilter(
                flow_run_id=ArtifactFilterFlowRunId(any_=[run.id for run in runs]),
                key=ArtifactFilterKey(any_=[f"deploy-{environment}"]),
            ),
            limit=RUNS,
        )
    rows = {table.flow_run_id: json.loads(str(table.data)) for table in tables}
    return tuple(_deploy(run, rows.get(run.id, [])) for run in runs if run.start_time)


def _deploy(run: FlowRun, rows: list[dict[str, Any]]) -> DeployRun:
    state = run.state
    return DeployRun(
        name=run.name,
        begun=run.start_time,  # type: ignore[arg-type]  # has begun
        seconds=round(run.total_run_time.total_seconds(), 1),
        state=(state.name or "").lower() if state else "",
        message=(state.message or "") if state else "",
        nodes=tuple(NodeProgress(**plain_cells(row)) for row in rows if "began" in row),
    )
