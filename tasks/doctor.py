"""What the doctor asks the Prefect server: dead workers, stuck runs, schedules without runs, missing automations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import prefect
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Crashed

from components.base import Check
from config.loading import ROOT
from errors import TemporaryError
from operations.doctor import Finding, Question, clock

FILE, AUTOMATIONS = ROOT / "prefect.yaml", ROOT / "deployments/automations.yaml"
# A worker asks every 15 s and a process starts in less than a minute; a cancelled run has 30 s until SIGKILL.
STUCK = {"PENDING": timedelta(minutes=10), "CANCELLING": timedelta(minutes=2)}


def questions() -> list[Question]:
    """What is asked of the server; one finding alone where none is configured."""
    if not PREFECT_API_URL.value():
        words = "none is configured: set PREFECT_API_URL"
        return [
            (
                "Prefect server",
                lambda: [Finding(Check("Prefect server", False, words, critical=False))],
            )
        ]
    return [
        ("Prefect server", _server),
        ("workers", _workers),
        ("runs", _runs),
        ("schedules", lambda: _schedules(FILE)),
        ("automations", lambda: automations(AUTOMATIONS)),
    ]


def automations(file: Path) -> Iterator[Finding]:
    """Whether the server has every automation of a file; by name, since creating one twice makes two."""
    wanted = yaml.safe_load(file.read_text())["automations"]
    present = {one["name"] for one in _post("/automations/filter", {})}
    missing = [one for one in wanted if one["name"] not in present]

    def create() -> str:
        for one in missing:
            _post("/automations/", one)
        return f"created {', '.join(one['name'] for one in missing)}"

    names = ", ".join(one["name"] for one in missing)
    hint = f"missing: {names}" if missing else f"{len(wanted)} are there"
    yield Finding(Check("automations", not missing, hint, critical=False), create)


# ---------------------------------------------------------------------- inside
def _server() -> Iterator[Finding]:
    with _client() as client:
        answer = client.request("GET", "/admin/version")
    found, own = str(json.loads(answer.content)), prefect.__version__
    hint = f"{found} at {PREFECT_API_URL.value()}" + ("" if found == own else f"; this is {own}")
    yield Finding(Check("Prefect server", found == own, hint))
    yield from clock("Prefect", parsedate_to_datetime(answer.headers["Date"]))


def _workers() -> Iterator[Finding]:
    for pool in sorted({one["work_pool"]["name"] for one in _deployments(FILE)}):
        found = _post(f"/work_pools/{pool}/workers/filter", {})
        alive = [one["name"] for one in found if one["status"] == "ONLINE"]
        hint = f"{', '.join(alive)} at work" if alive else "no worker is alive: runs wait for ever"
        yield Finding(Check(f"workers of {pool}", bool(alive), hint))


def _runs() -> Iterator[Finding]:
    now = datetime.now(UTC)
    body = {"flow_runs": {"state": {"type": {"any_": list(STUCK)}}}, "limit": 200}
    stuck = [
        run
        for run in _post("/flow_runs/filter", body)
        if now - datetime.fromisoformat(run["state"]["timestamp"]) > STUCK[run["state_type"]]
    ]

    def end() -> str:
        with _client() as client:
            for run in stuck:
                pending = run["state_type"] == "PENDING"
                words = "found stuck: no process is behind it"
                state: State[Any] = Crashed(message=words) if pending else Cancelled(message=words)
                client.set_flow_run_state(UUID(run["id"]), state, force=True)
        return f"ended {', '.join(run['name'] for run in stuck)}"

    names = ", ".join(f"{run['name']} ({run['state_name']})" for run in stuck)
    hint = f"stuck: {names}" if stuck else "none is stuck"
    yield Finding(Check("runs", not stuck, hint), end)


def _schedules(file: Path) -> Iterator[Finding]:
    """The canary: each active schedule has made runs that are still to come. Prefect's scheduler can fail silently."""
    present = {one["name"]: one for one in _post("/deployments/filter", {"limit": 200})}
    for wanted in _deployments(file):
        name = wanted["name"]
        live = present.get(name)
        if live is None:
            yield Finding(
                Check(f"deployment {name}", False, "is not there: prefect --no-prompt deploy --all")
            )
            continue
        if not wanted.get("schedules"):
            continue
        active = [one for one in live["schedules"] if one["active"]]
        if live["paused"] or len(active) < len(wanted["schedules"]):
            words = f"{len(active)} of {len(wanted['schedules'])} schedules are active: resume them in the UI"
            yield Finding(Check(f"schedule of {name}", False, words))
            continue
        later = {
            "deployments": {"id": {"any_": [live["id"]]}},
            "flow_runs": {
                "state": {"type": {"any_": ["SCHEDULED"]}},
                "expected_start_time": {"after_": datetime.now(UTC).isoformat()},
            },
        }
        count = _post("/flow_runs/count", later)
        words = (
            f"{count} runs to come"
            if count
            else "the scheduler has made no run: restart the server, see its log"
        )
        yield Finding(Check(f"schedule of {name}", bool(count), words))


def _deployments(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load(file.read_text())["deployments"])


def _post(path: str, body: dict[str, Any]) -> Any:
    with _client() as client:
        return json.loads(client.request("POST", path, json=body).content)  # type: ignore[arg-type]


@contextmanager
def _client() -> Iterator[SyncPrefectClient]:
    try:
        with get_client(sync_client=True) as client:
            yield client
    except httpx.HTTPError as exc:
        raise TemporaryError(f"Prefect server {PREFECT_API_URL.value()}: {exc}") from exc
