"""What the gate says of Neo4j; the sandbox has one Community member, so that its loss is the service's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from components.access import Access
from components.neo4j.client import DATABASE, LABEL, PORT, query
from components.neo4j.readiness import ask as ask_engine

from .live import Live, says, troubles

C = "neo4j"
ROUNDS, AT_ONCE = 12, 3


def test_a_healthy_member_writes_and_is_read(live: Live) -> None:
    found = live.ask(C)
    assert found.state == "ready", troubles(found)
    assert [role.role for role in found.roles] == ["leader"]


def test_rounds_at_the_same_time_are_all_green_and_leave_nothing(live: Live) -> None:
    with Access(live.environment.settings, live.environment.kube, 20.0) as access:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            reports = list(pool.map(lambda _: ask_engine(access), range(ROUNDS)))
        member = access.endpoint("neo4j-1-0", PORT)
        (left,) = query(access, member, f"MATCH (n:{LABEL}) RETURN count(n) AS nodes", DATABASE)
    assert [check for report in reports for check in report.checks if not check.ok] == []
    assert left["nodes"] == 0


def test_a_dead_member_is_down_and_comes_back_with_its_data(live: Live) -> None:
    live.ask(C)
    live.kill("neo4j-1-0")
    live.until(C, says("members answer", "neo4j-1-0", "nothing listens", state="down"), "down")


def test_a_wrong_password_is_called_by_its_name(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Access(live.environment.settings, live.environment.kube) as access:
        monkeypatch.setattr(access, "secret", lambda name, key: "neo4j/wrong-wrong")
        report = ask_engine(access)
    hints = {check.name: check.hint for check in report.checks if not check.ok}
    assert "refused the credentials" in hints["members answer"]
