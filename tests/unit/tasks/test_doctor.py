"""The doctor survives a Prefect server that goes away between its question and the mending."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from operations.health.doctor import mend
from tasks import doctor, server


def test_what_cannot_be_ended_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = {
        "id": "00000000-0000-0000-0000-000000000001",
        "name": "backup-1",
        "state_type": "PENDING",
        "state_name": "Pending",
        "state": {"timestamp": "2026-01-01T00:00:00+00:00"},
    }

    def away(*_: object, **__: object) -> Any:
        raise httpx.ConnectError("connection refused")

    @contextmanager
    def client(**_: object) -> Iterator[Any]:
        yield SimpleNamespace(set_flow_run_state=away)

    monkeypatch.setattr(doctor, "post", lambda path, body: [stuck])
    monkeypatch.setattr(server, "get_client", client)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:4200/api"}):
        (after,) = mend(doctor._runs())
    assert not after.check.ok
    assert "could not be fixed" in after.check.hint
    assert "connection refused" in after.check.hint


def test_a_queue_that_no_worker_asks_is_told_where_a_schedule_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = {"default": "READY", "backups": "NOT_READY", "rebuilds": "NOT_READY"}
    answer = [{"name": name, "status": status} for name, status in asked.items()]
    monkeypatch.setattr(doctor, "post", lambda path, body: answer)
    told = {finding.check.name: finding.check for finding in doctor._queues()}
    assert told["queue default"].ok
    assert not told["queue backups"].ok
    assert not told["queue proofs"].ok  # the server does not even know it
    assert told["queue rebuilds"].ok
    assert "start one" in told["queue rebuilds"].hint


def test_a_run_of_yesterday_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def post(path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        before = datetime.fromisoformat(body["flow_runs"]["start_time"]["before_"])
        began = datetime.now(UTC) - timedelta(hours=25)
        return [{"name": "backup-1"}] if began < before else []

    monkeypatch.setattr(doctor, "post", post)
    (found,) = doctor._long()
    assert not found.check.ok
    assert "backup-1" in found.check.hint
    monkeypatch.setattr(doctor, "post", lambda path, body: [])
    (found,) = doctor._long()
    assert found.check.ok


def test_a_pool_or_queue_that_lets_no_run_begin_is_critical_and_a_pause_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool: dict[str, Any] = {"concurrency_limit": None, "is_paused": False}
    queue: dict[str, Any] = {"name": "backups", "concurrency_limit": None, "is_paused": False}
    monkeypatch.setattr(doctor, "get", lambda path: pool)
    monkeypatch.setattr(doctor, "post", lambda path, body: [queue, {**queue, "name": "another"}])

    def found(runs: int | None = None) -> Any:
        (finding,) = doctor._pool_limits(runs)
        return finding.check

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
