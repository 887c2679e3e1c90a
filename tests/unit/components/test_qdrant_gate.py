"""The gate calls a healthy Qdrant ready whoever else asks, and sees what only one peer or one collection shows."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cluster.command import CANCELLATION
from components.base import Check
from components.qdrant.probe import LEFTOVER_SECONDS, transact
from components.qdrant.readiness import ask
from components.questions import PROBE
from tests.unit.components.qdrant_fake import Cluster, Refusal

ROUNDS = 40


def bad(cluster: Cluster) -> dict[str, Check]:
    """Checks of a round that are not ok, by their names."""
    report = ask(cluster.access())
    return {check.name: check for check in report.checks if not check.ok}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(CANCELLATION, "sleep", made.sleep)
    return made


def test_three_rounds_at_once_are_all_green_and_leave_nothing(cluster: Cluster) -> None:
    with ThreadPoolExecutor(3) as pool:
        rounds = list(pool.map(lambda _: bad(cluster), range(ROUNDS)))
    assert rounds == [{}] * ROUNDS
    assert sum(cluster.count(PROBE)) == 0


def test_a_round_that_ends_takes_no_point_from_one_that_is_under_way(cluster: Cluster) -> None:
    assert bad(cluster) == {}
    paused, ended = threading.Event(), threading.Event()
    first = threading.current_thread()

    def pause(member: str, method: str, path: str) -> None:
        if path.endswith("/points") and method == "POST" and threading.current_thread() != first:
            paused.set()  # written, not yet read
            assert ended.wait(20)

    cluster.before = pause
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(bad, cluster)
        assert paused.wait(20)
        assert bad(cluster) == {}
        ended.set()
        assert under_way.result() == {}


def test_a_round_removes_what_killed_ones_left_and_no_point_of_a_live_one(cluster: Cluster) -> None:
    access, at = cluster.access(), [0.0]
    writer = access.endpoint("qdrant-0", 6333)
    peers = [str(peer) for peer in cluster.ids.values()]
    transact(access, writer, writer, 3, peers, lambda: at[0])
    for name, written in (("killed", 0.0), ("alive", LEFTOVER_SECONDS)):
        point = {"id": name, "payload": {"written": written}, "vector": []}
        for shard in cluster.collections[PROBE].shards.values():
            for points in shard.points.values():
                points[name] = point
    at[0] = LEFTOVER_SECONDS + 1
    transact(access, writer, writer, 3, peers, lambda: at[0])
    shards = cluster.collections[PROBE].shards.values()
    assert {name for shard in shards for points in shard.points.values() for name in points} == {
        "alive"
    }


@pytest.mark.parametrize("payload", [
    None, {}, {"written": "yesterday"}, {"written": {}}, {"written": []}, {"written": True}, {"written": None},
    {"written": 10**400}, {"written": -(10**400)}, "text",
])  # fmt: skip
def test_a_round_removes_what_somebody_else_wrote_into_its_collection(
    cluster: Cluster, payload: object
) -> None:
    assert bad(cluster) == {}
    for shard in cluster.collections[PROBE].shards.values():
        for points in shard.points.values():
            points["foreign"] = {"id": "foreign", "payload": payload, "vector": []}
    assert bad(cluster) == {}
    assert sum(cluster.count(PROBE)) == 0


def test_the_gates_own_collection_gets_its_replicas_back_after_a_peer_was_replaced(
    cluster: Cluster,
) -> None:
    assert bad(cluster) == {}
    replaced = cluster.ids["qdrant-2"]
    shards = cluster.collections[PROBE].shards.values()
    for shard in shards:
        if len(shard.replicas) > 1:
            shard.replicas.pop(replaced, None)
            shard.points.pop(replaced, None)
    assert any(len(shard.replicas) == 1 for shard in shards)
    rounds = [bad(cluster) for _ in range(5)]
    assert all(len(shard.replicas) == 2 for shard in shards)
    assert rounds[-1] == {}


def test_a_point_that_does_not_arrive_at_another_peer_is_down(cluster: Cluster) -> None:
    assert bad(cluster) == {}
    reader = cluster.ids["qdrant-2"]
    for shard in cluster.collections[PROBE].shards.values():
        shard.replicas = dict.fromkeys(shard.replicas, "Active")
        if reader in shard.points:
            shard.points[reader] = Forgets()
    check = bad(cluster)["points written and read through another peer"]
    assert check.critical
    assert "of 64 points" in check.hint


class Forgets(dict[Any, Any]):
    def __setitem__(self, key: Any, value: Any) -> None:
        """Forget it."""


def test_a_peer_that_hangs_is_named_and_leaves_the_others_in_use(cluster: Cluster) -> None:
    assert bad(cluster) == {}
    cluster.away = {"qdrant-2"}
    cluster.write_seconds = 8.0  # measured: until the others have called its replicas dead
    assert set(bad(cluster)) == {"peers answer"}


@pytest.mark.parametrize(("stopped", "critical"), [(1, False), (2, True)])
def test_a_peer_whose_consensus_has_ended_is_named(
    stopped: int, critical: bool, cluster: Cluster
) -> None:
    cluster.stopped = {f"qdrant-{n}": "no space left" for n in range(stopped)}
    (check,) = bad(cluster).values()
    assert check.name == "peers take part in consensus"
    assert check.critical is critical
    assert "qdrant-0" in check.hint
    assert "stopped_with_err (no space left)" in check.hint


def test_a_red_collection_is_named_with_the_servers_reason(cluster: Cluster) -> None:
    cluster.make("full").status = "red"
    (check,) = bad(cluster).values()
    assert (check.name, check.critical) == ("collections are in order", False)
    assert "collection full" in check.hint
    assert "disk full" in check.hint


def test_what_only_another_peer_knows_of_a_replica_is_seen(cluster: Cluster) -> None:
    shard = cluster.make("plain").shards[0]
    shard.views[cluster.ids["qdrant-1"]] = dict.fromkeys(shard.replicas, "Dead")
    (check,) = bad(cluster).values()
    assert check.name == "replicas are active"
    assert "plain, shard 0" in check.hint


@pytest.mark.parametrize("name", ["a#b", "pct%41", "what?", "two words", "naïve", "{x}"])
def test_a_collection_may_have_any_name(name: str, cluster: Cluster) -> None:
    cluster.make(name, points=3)
    assert bad(cluster) == {}


def test_collections_that_come_and_go_meanwhile_are_no_trouble(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = iter(range(1000))
    cluster.make("stays", points=3)

    def come_and_go(seconds: float = 0.0) -> None:
        for name in [one for one in cluster.collections if one.startswith(("young", "going"))]:
            del cluster.collections[name]
        young = cluster.make(f"young-{next(number)}")
        young.shards[0].replicas = dict.fromkeys(young.shards[0].replicas, "Initializing")
        cluster.make(f"going-{next(number)}")

    def going(member: str, method: str, path: str) -> None:
        if path.startswith("/collections/going"):
            raise Refusal(500, "Service internal error: the channel is closed")

    cluster.before = going
    come_and_go()
    monkeypatch.setattr(CANCELLATION, "sleep", come_and_go)
    assert bad(cluster) == {}


def test_a_replica_that_stays_dead_is_told_after_a_second_look(cluster: Cluster) -> None:
    shard = cluster.make("plain").shards[0]
    shard.replicas[next(iter(shard.replicas))] = "Dead"
    (check,) = bad(cluster).values()
    assert "is Dead" in check.hint
    assert cluster.waited == [1.0]


def test_a_lost_peer_that_the_cluster_remembers_makes_it_no_whole_one(cluster: Cluster) -> None:
    cluster.lost = {99: "http://10.0.0.99:6335/"}
    assert "knows 4 of 3 peers" in bad(cluster)["one cluster"].hint


def test_points_are_written_to_every_shard_whoever_made_the_collection(cluster: Cluster) -> None:
    cluster.make(PROBE, strict_mode_config={"enabled": True, "max_query_limit": 10})
    assert bad(cluster) == {}
