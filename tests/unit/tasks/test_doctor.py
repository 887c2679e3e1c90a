"""The doctor's checks of the Prefect server: what blocks runs, what is stuck, and a server that goes away."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from components.base import Check
from config.models import Settings
from operations.health.findings import Finding, fix
from tasks.server import doctor

from .prefect_api import PrefectApi, serve

POOL = "/work_pools/isa-platform"
RUNS = "POST /flow_runs/filter"
STUCK: dict[str, Any] = {
    "id": "00000000-0000-0000-0000-000000000001",
    "name": "backup-1",
    "state_type": "PENDING",
    "state_name": "Pending",
    "state": {"timestamp": "2026-01-01T00:00:00+00:00"},
}


@pytest.fixture
def api() -> Iterator[PrefectApi]:
    made = PrefectApi()
    with serve(made):
        yield made


def ask(question: str, runs: int | None = None) -> list[Finding]:
    """The findings of one of the doctor's questions, with this limit of the pool in the settings."""
    settings = cast(Settings, SimpleNamespace(pool=SimpleNamespace(runs=runs)))
    return list(dict(doctor.questions(settings))[question]())


def checks(question: str, runs: int | None = None) -> dict[str, Check]:
    return {one.check.name: one.check for one in ask(question, runs)}


def test_without_a_server_there_is_one_finding_that_names_the_setting() -> None:
    (check,) = checks("Prefect server").values()
    assert not check.ok and not check.critical
    assert "set PREFECT_API_URL" in check.hint


def test_a_pool_without_a_live_worker_is_a_finding(api: PrefectApi) -> None:
    workers = [{"name": "w1", "status": "OFFLINE"}, {"name": "w2", "status": "ONLINE"}]
    api.answers[f"POST {POOL}/workers/filter"] = lambda _: workers
    assert checks("workers")["workers of isa-platform"].hint == "running: w2"
    workers.pop()
    (check,) = checks("workers").values()
    assert not check.ok
    assert "runs wait until one starts" in check.hint


def test_a_stuck_run_is_named_and_a_young_one_is_not(api: PrefectApi) -> None:
    def run(name: str, kind: str, minutes: float) -> dict[str, Any]:
        at = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()
        return STUCK | {
            "name": name, "state_type": kind, "state_name": kind.title(), "state": {"timestamp": at}
        }  # fmt: skip

    young = [run("a", "PENDING", 9), run("b", "CANCELLING", 1)]
    old = [run("c", "PENDING", 11), run("d", "CANCELLING", 3)]
    api.answers[RUNS] = young + old
    assert checks("runs")["runs"].hint == "stuck: c (Pending), d (Cancelling)"
    api.answers[RUNS] = young
    assert checks("runs")["runs"].ok


@pytest.mark.parametrize(("kind", "ended"), [("PENDING", "CRASHED"), ("CANCELLING", "CANCELLED")])
def test_a_stuck_run_is_ended_as_what_it_was(kind: str, ended: str, api: PrefectApi) -> None:
    states: list[Any] = []

    def set_state(body: Any) -> Any:
        states.append((body["state"]["type"], body["force"]))
        state = {"type": ended, "timestamp": "2026-01-01T00:00:00+00:00"}
        return {"state": state, "status": "ACCEPT", "details": {"type": "accept_details"}}

    api.answers[RUNS] = [STUCK | {"state_type": kind}]
    api.answers[f"POST /flow_runs/{STUCK['id']}/set_state"] = set_state
    (after,) = fix(ask("runs"))
    assert after.check.ok, after.check.hint
    assert after.check.hint.endswith("ended backup-1")
    assert states == [(ended, True)]


def test_a_stuck_run_that_cannot_be_ended_stays_a_finding(api: PrefectApi) -> None:
    api.answers[RUNS] = [STUCK]  # the server answers 404 to the change of its state
    (after,) = fix(ask("runs"))
    assert not after.check.ok
    assert "could not be fixed" in after.check.hint
    assert STUCK["id"] in after.check.hint


def test_a_queue_that_no_worker_asks_is_told_where_a_schedule_needs_it(api: PrefectApi) -> None:
    asked = {"default": "READY", "backups": "NOT_READY", "rebuilds": "NOT_READY"}
    api.answers[f"POST {POOL}/queues/filter"] = [
        {"name": name, "status": status} for name, status in asked.items()
    ]
    told = checks("queues")
    assert told["queue default"].ok
    assert not told["queue backups"].ok
    assert not told["queue proofs"].ok  # the server does not even know it
    assert told["queue rebuilds"].ok
    assert "start one" in told["queue rebuilds"].hint


def test_a_run_of_yesterday_is_told(api: PrefectApi) -> None:
    def running(body: Any) -> list[dict[str, Any]]:
        before = datetime.fromisoformat(body["flow_runs"]["start_time"]["before_"])
        began = {"a": timedelta(hours=25), "b": timedelta(hours=23)}
        return [{"name": n} for n, age in began.items() if datetime.now(UTC) - age < before]

    api.answers[RUNS] = running
    found = checks("long runs")["long runs"]
    assert (found.ok, found.critical) == (False, False)
    assert "more than a day: a;" in found.hint
    api.answers[RUNS] = []
    assert checks("long runs")["long runs"].ok


def test_a_pool_or_queue_that_lets_no_run_begin_is_critical_and_a_pause_a_warning(
    api: PrefectApi,
) -> None:
    pool: dict[str, Any] = {"concurrency_limit": None, "is_paused": False}
    queue: dict[str, Any] = {"name": "backups", "concurrency_limit": None, "is_paused": False}
    closed = {"name": "another", "concurrency_limit": 0, "is_paused": True}  # none of ours
    api.answers[f"GET {POOL}"] = lambda _: pool
    api.answers[f"POST {POOL}/queues/filter"] = lambda _: [queue, closed]

    def found(runs: int | None = None) -> Check:
        (check,) = checks("pools", runs).values()
        return check

    assert found().ok
    pool["is_paused"] = True
    assert not found().ok and not found().critical
    assert "the pool is paused" in found().hint
    queue["concurrency_limit"] = 0
    assert found().critical
    assert "queue backups allows no run to start; the pool is paused" in found().hint
    pool |= {"is_paused": False, "concurrency_limit": 0}
    assert "the pool allows no run to start" in found().hint
    pool["concurrency_limit"] = 3
    queue["concurrency_limit"] = None
    assert found(3).ok
    assert "the pool's limit is 3 instead of 4" in found(4).hint
