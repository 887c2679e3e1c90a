"""The gate of Redis Cluster: what each check says of a healthy cluster, and of every way in which it breaks."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from components.base import Check, Report, Role, Workload
from components.redis.readiness import ask, workloads

from .redis_double import Cluster, Server, three_shards


@dataclass
class Member(Server):
    """A member with troubles of its own.

    Attributes:
        link: to its master, `up` or `down`.
        state: of the cluster, as it sees it.
        forgets: whether it drops what it is given.
        copies: what it answers to WAIT; None for the truth.
        sees: the other members' slots as it sees them, instead of the true ones.
    """

    link: str = "up"
    state: str = "ok"
    forgets: bool = False
    copies: int | None = None
    sees: dict[int, tuple[str, ...]] | None = None

    def on_cluster(self, what: bytes, *words: bytes) -> Any:
        if what.upper() == b"INFO":
            return f"cluster_state:{self.state}\r\n".encode()
        kept = {one.number: one.slots for one in self.cluster.servers}
        for one in self.cluster.servers:
            one.slots = (self.sees or {}).get(one.number, one.slots)
        try:
            return super().on_cluster(what, *words)
        finally:
            for one in self.cluster.servers:
                one.slots = kept[one.number]

    def on_info(self, what: bytes = b"") -> Any:
        found: bytes = super().on_info(what)
        return found.replace(b"link_status:up", f"link_status:{self.link}".encode())

    def on_get(self, name: bytes) -> Any:
        return None if self.forgets else super().on_get(name)

    def on_wait(self, *words: bytes) -> Any:
        return super().on_wait(*words) if self.copies is None else self.copies


def members(cluster: Cluster) -> list[Member]:
    return cast(list[Member], cluster.servers)


@pytest.fixture
def cluster() -> Cluster:
    return three_shards(of=Member)


def asked(cluster: Cluster) -> Report:
    with cluster.served() as access:
        return ask(access)


def bad(cluster: Cluster) -> dict[str, Check]:
    return {check.name: check for check in asked(cluster).checks if not check.ok}


def test_a_healthy_cluster_answers_every_check(cluster: Cluster) -> None:
    report = asked(cluster)
    assert [(one.name, one.ok, one.hint, one.critical) for one in report.checks] == [
        ("members answer", True, "6 of 6", False),
        ("all slots covered", True, "16384 slots on 3 masters", True),
        ("one view of the cluster", True, "", False),
        ("no slot is moving", True, "", False),
        ("each master has a linked replica", True, "3 replicas", False),
        ("copies on different nodes", True, "", False),
        ("write to every shard", True, "3 of 3", True),
        ("read back on the replicas", True, "", False),
        ("clean up", True, "3 of 3", False),
    ]
    assert report.roles == (
        *(Role(f"redis-cluster-{n}", "master") for n in range(3)),
        *(Role(f"redis-cluster-{n}", "replica", "0 B") for n in range(3, 6)),
    )


def test_all_members_of_the_settings_are_wanted() -> None:
    settings = SimpleNamespace(components=SimpleNamespace(redis=SimpleNamespace(members=6)))
    assert workloads(cast(Any, settings)) == (Workload("StatefulSet", "redis-cluster", 6),)


def test_a_cluster_of_which_nobody_answers_covers_no_slot(cluster: Cluster) -> None:
    report = ask(cluster.access())  # it listens nowhere
    assert {one.name: one.critical for one in report.checks} == {
        "members answer": False,
        "all slots covered": True,
    }
    assert [one.ok for one in report.checks] == [False, False]
    assert report.checks[1].hint == "no member answers"
    assert report.roles == ()


def test_slots_that_nobody_serves_are_named(cluster: Cluster) -> None:
    members(cluster)[2].slots = ("10923-16000", "16002-16382")
    check = bad(cluster)["all slots covered"]
    assert check.critical
    assert check.hint.startswith("slots 16001, 16383 have no master: a shard has lost")


def test_a_member_that_sees_no_majority_is_named(cluster: Cluster) -> None:
    members(cluster)[4].state = "fail"
    found = bad(cluster)
    assert list(found) == ["all slots covered"]
    assert (
        "cluster_state:fail on redis-cluster-4: they cannot reach a majority"
        in found["all slots covered"].hint
    )


def test_a_member_with_a_view_of_its_own_is_outvoted(cluster: Cluster) -> None:
    members(cluster)[5].sees = {0: (), 1: ("0-10922",)}
    found = bad(cluster)
    assert list(found) == ["one view of the cluster"]
    assert not found["one view of the cluster"].critical
    assert "members disagree" in found["one view of the cluster"].hint


def test_a_master_whose_replica_has_lost_its_link_is_named(cluster: Cluster) -> None:
    members(cluster)[4].link = "down"
    report = asked(cluster)
    (check,) = [one for one in report.checks if not one.ok]
    assert (check.name, check.critical) == ("each master has a linked replica", False)
    assert check.hint == (
        "redis-cluster-4: its link to redis-cluster-1 is down; redis-cluster-1: has no linked "
        "replica: if it is lost, its slots are lost"
    )
    assert report.roles[4] == Role("redis-cluster-4", "replica")  # how far behind is not known


def test_a_replica_on_its_masters_node_is_named(cluster: Cluster) -> None:
    endpoints = cluster.endpoints()

    def together() -> Any:
        for at, endpoint in enumerate(cluster_endpoints()):
            node = endpoints[0].node if at == 3 else endpoint.node
            yield type(endpoint)(
                endpoint.member, endpoint.host, endpoint.port, endpoint.pod_ip, node
            )

    cluster_endpoints = cluster.endpoints
    cluster.endpoints = lambda: list(together())  # type: ignore[method-assign]
    (check,) = bad(cluster).values()
    assert (check.name, check.critical) == ("copies on different nodes", False)
    assert check.hint == (
        "redis-cluster-3: on node-0 like its master redis-cluster-0: losing this node loses the shard"
    )


def test_a_write_that_no_replica_acknowledges_is_not_read_back(cluster: Cluster) -> None:
    members(cluster)[1].copies = 0
    (check,) = bad(cluster).values()
    assert (check.name, check.critical) == ("read back on the replicas", False)
    assert check.hint == "redis-cluster-1: no replica acknowledged the write"


def test_a_replica_that_has_not_what_was_written_is_named(cluster: Cluster) -> None:
    members(cluster)[5].forgets = True
    (check,) = bad(cluster).values()
    assert check.hint == "redis-cluster-2: redis-cluster-5 does not have the written value"


def test_a_shard_that_takes_no_writes_is_down(cluster: Cluster) -> None:
    members(cluster)[0].refused = {"SET": "MISCONF Redis is configured to save RDB snapshots"}
    check = bad(cluster)["write to every shard"]
    assert check.critical
    assert check.hint.startswith("redis-cluster-0: ")
    assert "MISCONF" in check.hint or "save RDB snapshots" in check.hint


def test_a_key_that_cannot_be_removed_leaves_the_shard_in_use(cluster: Cluster) -> None:
    members(cluster)[2].refused = {"DEL": "NOPERM this user has no permissions"}
    (check,) = bad(cluster).values()
    assert (check.name, check.critical) == ("clean up", False)


def test_a_shard_without_replicas_is_written_and_waits_for_nobody(cluster: Cluster) -> None:
    alone = Cluster([Member(0, slots=("0-16383",))])
    found = bad(alone)
    assert list(found) == ["each master has a linked replica"]
    assert [said for said in alone.servers[0].said if said.startswith("WAIT")] == ["WAIT 0 2000"]


def test_a_master_that_serves_nothing_is_no_master_of_the_cluster(cluster: Cluster) -> None:
    one = Member(6)
    one.cluster = cluster
    cluster.servers.append(one)
    assert asked(cluster).roles[6] == Role("redis-cluster-6", "master without slots")
    assert [said for said in one.said if said.startswith("SET")] == []
