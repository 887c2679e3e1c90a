"""Artifacts of a run, for people: redacted, and repeated during a server outage, which never fails a run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal
from uuid import UUID

import httpx
from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
)
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from cluster.polling import polling
from config.text.printable import json_text
from operations.documents.base import Document
from operations.documents.runs import Run
from redaction import redact
from tasks.pages.markdown import Markdown, escape

# A server's restart takes 10-30 s here, a database's failover as long; `tasks.server.runs.follow` waits so long too.
PATIENCE_SECONDS = 120.0
RETRY_SECONDS = 2.0
FENCE = "```json"  # the UI shows it as it is


class Artifact:
    """An artifact of the running flow; each write replaces the one before.

    Args:
        kind: how the UI draws it.
        key: `deploy-sandbox`; its history in the UI has one entry per run.
        description: shown above it.
    """

    def __init__(self, kind: Literal["table", "markdown"], key: str, description: str) -> None:
        self._kind, self._key, self._description = kind, key, description
        # bound to the flow here: it may be written in threads that belong to no run
        self._run = UUID(runtime.flow_run.id)
        self._logger: Any = get_run_logger()
        self._client = get_client(sync_client=True)
        self._id: UUID | None = None
        self._away = False

    def write(self, data: str) -> bool:
        """Write once; returns whether it succeeded. The first of several failures is logged, and their end."""
        try:
            # Prefect's own patience doubles its pauses up to minutes: the newest is tried soon instead
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                self._write(redact(data))
        except httpx.HTTPError as exc:
            if not self._away:
                self._logger.warning("the artifact %s is not up to date: %s", self._key, exc)
            self._away = True
            return False
        if self._away:
            self._logger.info("the artifact %s is up to date again", self._key)
        self._away = False
        return True

    def insist(self, data: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Write, repeated for at most so many seconds: a missing artifact must not hold up the run."""
        for _ in polling(seconds, pause=RETRY_SECONDS, sleep=time.sleep):
            if self.write(data):
                return

    def _write(self, data: str) -> None:
        if self._away and self._id is None:  # the answer may be lost of a request that was heard
            self._id = self._find()
        if self._id is not None:
            self._client.update_artifact(self._id, ArtifactUpdate(data=data))
            return
        made = ArtifactCreate(
            type=self._kind,
            key=self._key,
            description=redact(escape(self._description)),
            data=data,
            flow_run_id=self._run,
        )
        self._id = self._client.create_artifact(made).id

    def _find(self) -> UUID | None:
        where = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[self._run]),
            key=ArtifactFilterKey(any_=[self._key]),
        )
        found = self._client.read_artifacts(artifact_filter=where, limit=1)
        return found[0].id if found else None


def keep_report(report: Document, key: str) -> None:
    """Keep with the run what it ends with, whole: `isa … --json` prints it, wherever the run was.

    Args:
        report: what the run ended with; one that names its run gets the id of this one.
        key: of the run's table.
    """
    document = report
    if isinstance(report, Run):
        document = replace(report, flow_run=str(runtime.flow_run.id))
    # no line of it ends the fence: in JSON a text has no line of its own
    lines = (FENCE, json_text(document.plain(), indent=2), "```")
    keep(map(Markdown, lines), report_key(key), "Result of this run")


def report_key(key: str) -> str:
    """Return the key of the report that belongs to a table."""
    return f"{key}-report"


def read_report(text: str) -> dict[str, Any]:
    """The report of an artifact's text.

    Raises:
        ValueError: it is not JSON: somebody has changed it.
    """
    found: dict[str, Any] = json.loads(text.removeprefix(FENCE).removesuffix("```"))
    return found


def keep(lines: Iterable[str], key: str, description: str) -> str:
    """Keep Markdown with the run; returns it as stored.

    Args:
        lines: of the text; a line that is not `Markdown` is escaped.
        key: of the artifact.
        description: shown above it.
    """
    text = redact("\n".join(map(escape, lines)))
    Artifact("markdown", key, description).insist(text)
    return text
