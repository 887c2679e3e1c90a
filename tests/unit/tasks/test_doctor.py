"""The doctor survives a Prefect server that goes away between its question and the mending."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from operations.doctor import mend
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
    assert "could not be mended" in after.check.hint
    assert "connection refused" in after.check.hint


def test_a_deployment_of_an_older_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def old(name: str, *tags: str) -> dict[str, Any]:
        return {"name": name, "id": f"id-of-{name}", "tags": tags}

    present = [old("backup-platform", "isa-cloud", "backup"), old("somebody-elses")]
    monkeypatch.setattr(doctor, "post", lambda path, body: present)
    told = {finding.check.name: finding.check.hint for finding in doctor._schedules({})}
    assert "delete --id id-of-backup-platform" in told["deployment backup-platform"]
    assert "deployment somebody-elses" not in told
    assert told["deployment deploy-platform"] == "is not there: isa setup"
