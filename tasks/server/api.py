"""The Prefect server's API, for requests about the server itself and not about a run."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL

from config.loading import ROOT
from config.text.documents import FastLoader
from errors import PermanentError, TemporaryError

FILE = ROOT / "prefect.yaml"
PAGE = 200  # the most that the server gives at once (PREFECT_SERVER_API_DEFAULT_LIMIT)
PROGRAM = "flows.execute"  # the module that a worker runs for every flow run (tasks.workers.worker)
# A job template without variables: the server refuses job variables. `job_configuration` must not be empty
# (`validate_base_job_template` in prefect/server/schemas/actions.py, 3.8.8).
JOB_TEMPLATE: dict[str, Any] = {
    "job_configuration": {"command": f"python -m {PROGRAM}"},
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}


@contextmanager
def connect() -> Iterator[SyncPrefectClient]:
    """Open a client of the configured server.

    Raises:
        PermanentError: it refuses the request, or none is configured.
        TemporaryError: it does not answer.
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
    except (
        ObjectNotFound
    ) as exc:  # the client's own error for a 404, which is no PrefectHTTPStatusError
        raise PermanentError(f"{where}: HTTP 404: {exc.http_exc}") from exc
    except httpx.HTTPError as exc:
        raise TemporaryError(f"{where} does not answer: {exc}") from exc


def get(path: str) -> Any:
    """GET for what the client has no method for."""
    return _ask("GET", path, None)


def post(path: str, body: Any) -> Any:
    """POST with a body."""
    return _ask("POST", path, body)


def delete(path: str) -> None:
    """DELETE."""
    _ask("DELETE", path, None)


def every(path: str) -> Iterator[Any]:
    """Return everything that a filter finds, page by page.

    Args:
        path: of the filter, such as `/deployments/filter`.
    """
    for offset in itertools.count(step=PAGE):
        page = post(path, {"limit": PAGE, "offset": offset, "sort": "NAME_ASC"})
        yield from page
        if len(page) < PAGE:
            return


def patch(path: str, body: Any) -> Any:
    """PATCH."""
    return _ask("PATCH", path, body)


def deployments() -> list[dict[str, Any]]:
    """The deployments in prefect.yaml."""
    return list(document()["deployments"])


def document() -> dict[str, Any]:
    """The content of prefect.yaml."""
    content: dict[str, Any] = yaml.load(FILE.read_text(encoding="utf-8"), Loader=FastLoader)
    return content


def _ask(method: str, path: str, body: Any) -> Any:
    with connect() as client:
        response = client.request(method, path, json=body)  # type: ignore[arg-type]
        return json.loads(response.content or "null")
