"""Starts flow runs by the API and follows them to their end, for the command line.

A run shows its progress in its table artifact and its result in its state. Both are on the server, so the worker can
be anywhere, and Ctrl-C ends the watching, not the run.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
)
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL
from pydantic import ValidationError

from cluster.polling import polling
from errors import ArgumentError, Fault, PermanentError, TemporaryError
from operations.documents import runs as documents
from tasks.approval import Approval
from tasks.pages.artifacts import read_report, report_key
from tasks.pages.markdown import plain_cells
from tasks.server.api import connect

log = logging.getLogger(__name__)
R = TypeVar("R", bound=documents.Run)

DEPLOY = "deploy-platform/deploy-platform"
NIGHTLY = "backup-platform/backup-nightly"
BACKUP = "backup-platform/backup-component"
REBUILD = "rebuild-component/rebuild-component"
RESTORE = "restore-component/restore-component"
VERIFY = "verify-restores/verify-restores"
POLL_SECONDS = 1.0
# The server may be restarted while a run goes on: that long it may stay away.
PATIENCE_SECONDS = 120.0
WORKER_SECONDS = 30.0  # a worker asks every 15 s
# A run is paused first, and its form is there a moment later (prefect.flow_runs.pause_flow_run).
NOT_ASKED, ASKED_SECONDS = "Run input schema not found.", 10.0


@dataclass(frozen=True)
class Run:
    """A flow run.

    Attributes:
        id: its id.
        name: as the UI shows it.
        url: its page in the UI.
    """

    id: UUID
    name: str
    url: str


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        state: completed, failed, cancelled or crashed.
        seconds: that it ran.
        rows: of its table artifact.
        message: of its state.
        flow_run: its id.
        report: text of the artifact with what it ended with; "" where it was ended before it could say so.
    """

    state: str
    seconds: float
    rows: list[dict[str, Any]]
    message: str
    flow_run: str
    report: str = ""

    def document(self, from_rows: R) -> R:
        """What a command prints of it: the report that the run kept.

        Args:
            from_rows: the report as far as the table tells, for a run that was ended before it could keep one.
        """
        try:
            report = type(from_rows).read(read_report(self.report)) if self.report else None
        except ValueError as exc:
            log.warning("the report of flow run %s is not used: %s", self.flow_run, exc)
            report = None
        if report is None:
            report = replace(from_rows, seconds=self.seconds)
        elif report.state == self.state:
            return report
        # the server has the last word: it may have ended the run behind its report
        return replace(report, state=self.state, message=self.message, flow_run=self.flow_run)


def start_run(
    deployment: str, parameters: dict[str, Any], *, idempotency_key: str | None = None
) -> Run:
    """Create a flow run from a deployment.

    Args:
        deployment: `flow/deployment`.
        parameters: of the flow; never a secret, the UI shows them.
        idempotency_key: a second call with the same key returns the first call's run.

    Raises:
        PermanentError: the deployment does not exist, or no server is configured.
        TemporaryError: the server does not answer.
    """
    if not PREFECT_API_URL.value():
        raise PermanentError("no Prefect server is configured: set PREFECT_API_URL, or use --local")
    with connect() as client:
        try:
            found = client.read_deployment_by_name(deployment)
        except ObjectNotFound as exc:
            raise PermanentError(
                f"the Prefect server {PREFECT_API_URL.value()} has no deployment {deployment}: run isa setup"
            ) from exc
        run = client.create_flow_run_from_deployment(
            found.id, parameters=parameters, idempotency_key=idempotency_key
        )
    return Run(run.id, run.name, f"{PREFECT_UI_URL.value()}/runs/flow-run/{run.id}")


def follow(
    run: Run,
    artifact_key: str,
    show: Callable[[list[dict[str, Any]]], None],
    warn: Callable[[str], None],
    paused: Callable[[Run], None] = lambda run: None,
) -> Ended:
    """Watch a run until it is final.

    Args:
        run: to watch.
        artifact_key: of its table artifact.
        show: called with the rows of the table each time they are read.
        warn: called once with a warning if no worker picks up the run.
        paused: called once if the run waits for an approval.

    Returns:
        How it ended, with the last rows of its table.
    """
    rows: list[dict[str, Any]] = []
    asked = last_answer = time.monotonic()
    told = asked_for = False
    while True:
        try:
            with connect() as client:
                found = client.read_flow_run(run.id)
                rows = _rows(client, run.id, artifact_key) or rows
                text = ""
                if found.state is not None and found.state.is_final():
                    text = _artifact(client, run.id, report_key(artifact_key))
            last_answer = time.monotonic()
        except TemporaryError:
            if time.monotonic() - last_answer > PATIENCE_SECONDS:
                raise
            time.sleep(POLL_SECONDS)
            continue
        show(rows)
        if not told and found.start_time is None and time.monotonic() - asked > WORKER_SECONDS:
            told = True
            pool = found.work_pool_name
            warn(
                f"no worker picked up the run within {WORKER_SECONDS:.0f} s: is a worker of pool {pool} running?"
            )
        if found.state is not None and found.state.is_final():
            break
        if not asked_for and found.state is not None and found.state.is_paused():
            asked_for = True
            paused(run)
        time.sleep(POLL_SECONDS)
    message = found.state.message or found.state.name or ""
    return Ended(
        state=found.state.type.value.lower(),
        seconds=round(found.total_run_time.total_seconds(), 2),
        rows=rows,
        message=message,
        flow_run=str(run.id),
        report=text,
    )


def check_answer(words: Mapping[str, Any]) -> None:
    """Refuse an answer to an approval that the form would not accept.

    Args:
        words: fields of the form.

    Raises:
        ArgumentError: a name or a ticket is too short or too long, or could be markup.
    """
    try:
        Approval.model_validate(words)
    except ValidationError as exc:
        hint = "2 to 100 characters on one line, none of < > [ ] ` * | \\"
        faults = [(str(error["loc"][0]), error["input"]) for error in exc.errors()]
        raise ArgumentError(
            [Fault(field, f"{value!r} is not accepted", hint) for field, value in faults]
        ) from exc


def answer(run: str, words: dict[str, Any]) -> None:
    """Answer a run that waits for an approval.

    Args:
        run: id of the flow run.
        words: fields of its form.

    Raises:
        ArgumentError: that is not an id, or the form would not accept the answer.
        PermanentError: the run does not wait, or did not accept the answer.
        TemporaryError: the server does not answer.
    """
    try:
        identity = UUID(run)
    except ValueError as exc:
        hint = "the run's page in the UI shows it"
        raise ArgumentError([Fault("FLOW_RUN", f"{run!r} is not a flow run id", hint)]) from exc
    check_answer(words)
    with connect() as client:
        try:
            # the resume of a run that does not exist is HTTP 500, which clients repeat for minutes
            client.read_flow_run(identity)
        except ObjectNotFound as exc:
            hint = "the run's page in the UI shows its id"
            raise PermanentError(f"this server has no flow run {run}: {hint}") from exc
    reason = ""
    for _ in polling(ASKED_SECONDS, pause=POLL_SECONDS, sleep=time.sleep):
        with connect() as client:
            result = client.resume_flow_run(identity, run_input=words)
        if result.status == SetStateStatus.ACCEPT:
            return
        reason = getattr(result.details, "reason", "") or "it was not accepted"
        if reason != NOT_ASKED:
            break
    raise PermanentError(f"flow run {run}: {reason}")


def _rows(client: SyncPrefectClient, run: UUID, key: str) -> list[dict[str, Any]]:
    return [plain_cells(row) for row in json.loads(_artifact(client, run, key) or "[]")]


def _artifact(client: SyncPrefectClient, run: UUID, key: str) -> str:
    """Return the data of a run's artifact; "" if it does not exist."""
    found = client.read_artifacts(
        artifact_filter=ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[run]), key=ArtifactFilterKey(any_=[key])
        ),
        limit=1,
    )
    return str(found[0].data) if found else ""
