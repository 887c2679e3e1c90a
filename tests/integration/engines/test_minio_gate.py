"""What the gate says of MinIO when drives are away: one, write quorum; two, still readable."""

from __future__ import annotations

import pytest

from components.access import Access
from components.minio.readiness import ask as ask_engine
from operations.health.gate import Finding

from .live import Live, both, says, troubles

C = "minio"


def test_a_healthy_set_shows_four_drives(live: Live) -> None:
    found = live.ask(C)
    assert found.state == "ready", troubles(found)
    assert [role.role for role in found.roles] == ["drive ok"] * 4


def test_one_dead_server_is_named_and_writes_go_on(live: Live) -> None:
    live.kill("minio-2")
    named = both(
        says("drives are whole", "minio-2", state="degraded"), says("servers answer", "minio-2")
    )
    live.until(C, named, "degraded")


def test_two_dead_servers_stop_writes_but_not_reads(live: Live) -> None:
    live.kill("minio-1", "minio-3")

    def reads(found: Finding) -> bool:
        return "read quorum" not in troubles(found)

    live.until(C, both(says("write quorum", "too few drives", state="down"), reads), "read only")


def test_wrong_keys_are_called_by_their_name(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    with Access(live.environment.settings, live.environment.kube) as access:
        monkeypatch.setattr(access, "secret", lambda name, key: "wrong-wrong")
        report = ask_engine(access)
    hints = {check.name: check.hint for check in report.checks if not check.ok}
    assert "refused the credentials" in hints["object put and read through another server"]
