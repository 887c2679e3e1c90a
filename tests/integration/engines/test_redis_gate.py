"""What the gate says of Redis Cluster when members die, links break or a shard's copies come together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import redis

from cluster.credentials import read_secret
from components.access import Access, Endpoint
from components.redis.readiness import ask as ask_engine
from operations.health.gate import Finding

from .live import Live, both, says, troubles

MEMBERS = [f"redis-cluster-{n}" for n in range(6)]
C = "redis"


def client(live: Live, member: str) -> redis.Redis:
    secret = read_secret(live.environment.kube, live.namespace, "redis-auth") or {}
    return redis.Redis(
        live.address(member), password=secret["redis-password"], decode_responses=True
    )


def of_role(found: Finding, role: str) -> list[str]:
    return [r.member for r in found.roles if r.role == role]


def shard_of(live: Live, replica: str) -> str:
    """The master behind a replica."""
    host = client(live, replica).info("replication")["master_host"]
    return next(m for m in MEMBERS if live.address(m) == host)


def test_a_healthy_cluster_shows_three_masters_with_a_replica_each(live: Live) -> None:
    found = live.ask(C)
    assert found.state == "ready", troubles(found)
    assert len(of_role(found, "master")) == len(of_role(found, "replica")) == 3


def test_a_dead_replica_is_named_with_the_master_that_lost_it(live: Live) -> None:
    replica = of_role(live.ask(C), "replica")[0]
    master = shard_of(live, replica)
    live.kill(replica)
    named = both(
        says("members answer", replica, "nothing listens", state="degraded"),
        says("each master has a linked replica", master),
    )
    live.until(C, named, "degraded")


def test_a_dead_master_is_replaced_by_its_replica(live: Live) -> None:
    replica = of_role(live.ask(C), "replica")[0]
    master = shard_of(live, replica)
    live.kill(master)
    found, took = live.until(
        C, lambda f: replica in of_role(f, "master") and f.state == "degraded", "serving again"
    )
    print(f"serving again after {took:.1f} s")
    live.heal()
    found, _ = live.until(C, lambda f: f.state == "ready", "whole again")
    assert master in of_role(found, "replica")


def test_a_shard_that_lost_all_members_leaves_its_slots_uncovered(live: Live) -> None:
    replica = of_role(live.ask(C), "replica")[0]
    live.kill(replica, shard_of(live, replica))
    live.until(C, says("all slots covered", "have no master", state="down"), "down")


def test_a_majority_of_masters_lost_is_down(live: Live) -> None:
    masters = of_role(live.ask(C), "master")
    live.kill(*masters[:2])
    live.until(C, says("members answer", *masters[:2], state="down"), "down")


def test_a_replica_whose_link_is_down_is_named(live: Live) -> None:
    replica = of_role(live.ask(C), "replica")[0]
    master = shard_of(live, replica)
    with client(live, replica) as connection:
        good = connection.config_get("primaryauth")["primaryauth"]
        connection.config_set("primaryauth", "wrong")
    try:
        client(live, master).client_kill_filter(_type="replica")
        check = "each master has a linked replica"
        live.until(C, says(check, replica, "is down", state="degraded"), "degraded")
    finally:
        client(live, replica).config_set("primaryauth", good)


def test_both_copies_of_a_shard_on_one_node_are_a_warning(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Access.endpoint

    def on_one_node(self: Access, pod: str, port: int) -> Endpoint:
        return replace(real(self, pod, port), node="node-1")

    monkeypatch.setattr(Access, "endpoint", on_one_node)
    found = live.ask(C)
    assert found.state == "degraded"
    assert "losing this node loses the shard" in troubles(found)["copies on different nodes"]


def test_a_wrong_password_is_called_by_its_name(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Access(live.environment.settings, live.environment.kube) as access:
        monkeypatch.setattr(access, "secret", lambda name, key: "wrong")
        report = ask_engine(access)
    hints = {check.name: check.hint for check in report.checks if not check.ok}
    assert "refused the credentials" in hints["members answer"]
