"""The Prefect server's API, for what is asked of the server itself and not of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL

from config.loading import ROOT
from errors import PermanentError, TemporaryError

FILE = ROOT / "prefect.yaml"
PROGRAM = "flows.execute"  # the module that a worker runs for every flow run (tasks.worker)
# A job template without variables: the server refuses job variables. `job_configuration` must not be empty
# (`validate_base_job_template` in prefect/server/schemas/actions.py, 3.8.8).
JOB_TEMPLATE: dict[str, Any] = {
    "job_configuration": {"command": f"python -m {PROGRAM}"},
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}


@contextmanager
def connect() -> Iterator[SyncPrefectClient]:
    """A client of the configured server.

    Raises:
        PermanentError: it refuses what is asked, or none is configured.
        TemporaryError: it is away.
    """
    if not PREFECT_API_URL.value():
        raise PermanentError("no Prefect server is configured: set PREFECT_API_URL")
    where = f"Prefect server {PREFECT_API_URL.value()}"
    try:
        with get_client(sync_client=True) as client:
            yield client
    except PrefectHTTPStatusError as exc:
        code = exc.response.status_code
        kind = TemporaryError if code >= 500 else PermanentError
        raise kind(f"{where}: HTTP {code}: {exc.response.text[:300]}") from exc
    except httpx.HTTPError as exc:
        raise TemporaryError(f"{where} does not answer: {exc}") from exc


def get(path: str) -> Any:
    """Ask for what the client has no method for."""
    return _ask("GET", path, None)


def post(path: str, body: Any) -> Any:
    """The same with a body."""
    return _ask("POST", path, body)


def patch(path: str, body: Any) -> Any:
    """Change what is there."""
    return _ask("PATCH", path, body)


def deployments() -> list[dict[str, Any]]:
    """What prefect.yaml declares."""
    return list(yaml.safe_load(FILE.read_text(encoding="utf-8"))["deployments"])


def declaration_faults(declared: Mapping[str, Any], live: Mapping[str, Any]) -> list[str]:
    """How a deployment of the server differs from its declaration in what is run, and where.

    Args:
        declared: its part of prefect.yaml.
        live: as the server's API gives it.
    """
    pool = declared["work_pool"]
    expected = {
        "entrypoint": declared["entrypoint"],
        "work_pool_name": pool["name"],
        "work_queue_name": pool["work_queue_name"],
    }
    faults = [
        f"{key} is {live.get(key)!r} instead of {value!r}"
        for key, value in expected.items()
        if live.get(key) != value
    ]
    foreign = {
        "pull_steps": "pull steps",
        "job_variables": "job variables",
        "storage_document_id": "a storage block",
    }
    return faults + [f"it has {words}" for key, words in foreign.items() if live.get(key)]


def _ask(method: str, path: str, body: Any) -> Any:
    with connect() as client:
        response = client.request(method, path, json=body)  # type: ignore[arg-type]
        return json.loads(response.content or "null")
