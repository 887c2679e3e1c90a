"""Sends metrics to Prometheus: a file for node-exporter, or a request to a Pushgateway."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import httpx

from errors import PermanentError, TemporaryError

JOB = "isa_cloud_backups"
PUSH_SECONDS = 15.0


def write_metrics(file: Path, text: str) -> None:
    """Replace a file atomically: node-exporter may read it at any moment.

    Raises:
        PermanentError: its directory cannot be written.
    """
    try:
        handle, fresh = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as target:
            target.write(text)
        os.chmod(fresh, 0o644)  # node-exporter is another user
        os.replace(fresh, file)
    except OSError as exc:
        raise PermanentError(f"metrics cannot be written to {file}: {exc.strerror}") from exc


def push_metrics(gateway: str, text: str, environment: str) -> None:
    """Replace the gateway's metrics of this environment.

    Args:
        gateway: its address.
        text: in Prometheus' text format.
        environment: name; the grouping key.

    Raises:
        PermanentError: it refuses them.
        TemporaryError: it does not answer.
    """
    where = f"{gateway.rstrip('/')}/metrics/job/{JOB}/environment/{environment}"
    try:
        answer = httpx.put(where, content=text, timeout=PUSH_SECONDS)
    except httpx.HTTPError as exc:
        raise TemporaryError(f"the Pushgateway does not answer: {exc}") from exc
    if answer.status_code >= 400:
        raise PermanentError(
            f"the Pushgateway rejected the metrics: HTTP {answer.status_code}: {answer.text[:300]}"
        )
