"""What the gate says of Qdrant when peers die: nothing of the server's own states would tell."""

from __future__ import annotations

import httpx
import pytest

from cluster.credentials import read_secret
from components.access import Access
from components.qdrant.readiness import ask as ask_engine

from .live import Live, both, says, troubles

PEERS = [f"qdrant-{n}" for n in range(3)]
C = "qdrant"


def cluster_of(live: Live, collection: str) -> str:
    key = (read_secret(live.environment.kube, live.namespace, "qdrant-auth") or {})["api-key"]
    url = f"http://{live.address('qdrant-0')}:6333/collections/{collection}/cluster"
    return httpx.get(url, headers={"api-key": key}, timeout=10).text


def test_a_healthy_cluster_shows_a_leader_and_two_followers(live: Live) -> None:
    found = live.ask(C)
    assert found.state == "ready", troubles(found)
    assert sorted(role.role for role in found.roles) == ["follower", "follower", "leader"]


def test_a_killed_peer_that_every_state_still_calls_active_is_found_and_its_replicas_are_named(
    live: Live,
) -> None:
    live.ask(C)
    live.kill("qdrant-2")
    assert "Dead" not in cluster_of(live, "isa-cloud-probe"), "the server has not noticed"
    named = both(
        says("peers answer", "qdrant-2"),
        says("peers reach one another", "do not arrive"),
        says("replicas are active", "isa-cloud-probe", "is Dead", state="degraded"),
    )
    live.until(C, named, "found dead")


def test_two_killed_peers_leave_no_quorum(live: Live) -> None:
    live.ask(C)
    live.kill("qdrant-1", "qdrant-2")
    live.until(C, says("peers have a quorum", "1 of 3", state="down"), "down")


def test_a_wrong_key_is_called_by_its_name(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    with Access(live.environment.settings, live.environment.kube) as access:
        monkeypatch.setattr(access, "secret", lambda name, key: "wrong")
        report = ask_engine(access)
    hints = {check.name: check.hint for check in report.checks if not check.ok}
    assert "refused the credentials" in hints["peers answer"]
