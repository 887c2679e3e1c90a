"""What the gate says of EMQX when nodes die, and of a password that is not the one."""

from __future__ import annotations

import pytest

from components.access import Access
from components.emqx.readiness import ask as ask_engine

from .live import Live, both, says, troubles

NODES = [f"emqx-{n}" for n in range(3)]
C = "emqx"


def test_a_healthy_cluster_passes_a_message_and_lets_nobody_in_without_a_password(
    live: Live,
) -> None:
    found = live.ask(C)
    assert found.state == "ready", troubles(found)
    assert [role.member for role in found.roles] == NODES


def test_a_dead_node_is_named_and_the_others_serve(live: Live) -> None:
    live.kill("emqx-1")
    named = both(says("nodes run", "emqx-1", "stopped"), says("nodes answer", "emqx-1"))
    # down for the moment in which the brokers elect another leader
    live.until(C, both(named, lambda f: f.state == "degraded"), "degraded")


def test_all_nodes_dead_is_down(live: Live) -> None:
    live.kill(*NODES)
    live.until(C, says("nodes run", "no node answers", state="down"), "down")


def test_a_wrong_password_is_called_by_its_name(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Access(live.environment.settings, live.environment.kube) as access:
        monkeypatch.setattr(access, "secret", lambda name, key: "wrong")
        report = ask_engine(access)
    hints = {check.name: check.hint for check in report.checks if not check.ok}
    assert "refused the credentials" in hints["nodes answer"]
