"""A backup takes every collection that is there from its beginning to its end, whatever clients and operators do."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from archive.backup.digests import FORM
from archive.backup.manifest import Artefact, Manifest, new_identity
from cluster.command import CANCELLATION
from components.base import BackupContent
from components.qdrant.backup import back_up
from components.qdrant.fingerprint import PAGE
from errors import TemporaryError
from tests.unit.archive.test_retention import a_set
from tests.unit.components.qdrant_fake import Cluster, Refusal, Stored


def take(cluster: Cluster, stored: Stored | None = None) -> BackupContent:
    writer: Any = stored or Stored()
    return back_up(cluster.access(), writer)


def count(taken: BackupContent, collection: str, item: str = "points") -> int:
    unit = f"collection {collection}"
    return next(one.count for one in taken.fingerprint if (one.unit, one.item) == (unit, item))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(CANCELLATION, "sleep", made.sleep)
    return made


def test_every_shard_of_every_collection_is_in_the_set_under_any_name(cluster: Cluster) -> None:
    odd = ["a#b", "pct%41", "what?", "two words", "naïve", "{x}", "[y]", "semi;colon", "plus+"]
    for name in odd:
        cluster.make(name, points=7)
    stored = Stored()
    taken = take(cluster, stored)
    assert taken.missing == ()
    assert {name: count(taken, name) for name in odd} == dict.fromkeys(odd, 7)
    assert len(stored.names("Qdrant shard snapshot")) == 3 * len(odd)
    assert all(not files for files in cluster.snapshots.values())


# ---------------------------------------------------------------------- points
def test_one_id_under_two_shard_keys_counts_twice(cluster: Cluster) -> None:
    cluster.keyed("orders", "east", "west", 1, "1")
    for key in ("east", "west", 1, "1"):
        cluster.fill("orders", range(20), key)
    assert count(take(cluster), "orders") == 80


def test_pages_keep_to_the_limit_of_the_collection(cluster: Cluster) -> None:
    limits = {"enabled": True, "max_query_limit": 100}
    cluster.make("strict", points=250, strict_mode_config=limits)
    cluster.make("off", points=PAGE + 1, strict_mode_config={**limits, "enabled": False})
    taken = take(cluster)
    assert (count(taken, "strict"), count(taken, "off")) == (250, PAGE + 1)
    scrolls = [one for one in cluster.requests if one.startswith("POST /collections/off/points")]
    assert len(scrolls) == 2 * 2


def test_a_rate_limit_is_waited_for(cluster: Cluster) -> None:
    limits = {"enabled": True, "read_rate_limit": 30, "max_query_limit": 10}
    cluster.make("slow", points=55, strict_mode_config=limits)
    taken = take(cluster)
    assert (taken.missing, count(taken, "slow")) == ((), 55)
    assert set(cluster.waited) == {2}


def test_a_request_that_no_budget_is_large_enough_for_is_not_repeated(cluster: Cluster) -> None:
    cluster.make("never", points=1)
    cluster.make("fine", points=1)

    def refuse(member: str, method: str, path: str) -> None:
        if path == "/collections/never/points/scroll":
            raise Refusal(429, "request larger than rate limiter capacity")

    cluster.before = refuse
    taken = take(cluster)
    assert [one.partition(": ")[0] for one in taken.missing] == ["collection never"]


# ---------------------------------------------------------------------- what changes meanwhile
def test_a_collection_that_is_dropped_meanwhile_is_named_and_costs_nothing(
    cluster: Cluster,
) -> None:
    cluster.make("going", points=5)
    cluster.make("staying", points=5)
    cluster.aliases = {"gone": "going", "kept": "staying"}

    def drop(member: str, method: str, path: str) -> None:
        if path.endswith("/going/shards/2/snapshots") and method == "POST":
            cluster.collections.pop("going", None)
            cluster.aliases.pop("gone", None)
            raise Refusal(500, "Service internal error: the channel is closed")

    cluster.before = drop
    stored = Stored()
    taken = take(cluster, stored)
    assert taken.missing == ()
    assert taken.topology["dropped_during_backup"] == ["going"]
    assert list(taken.topology["collections"]) == ["staying"]
    assert {name.partition("/")[0] for name in stored.plain} == {"staying", "aliases.json"}
    assert {one.unit for one in taken.fingerprint} == {
        "collection staying",
        "aliases",
        "collections",
    }


def test_a_collection_that_is_made_meanwhile_is_named_and_not_in_the_set(cluster: Cluster) -> None:
    cluster.make("old", points=5)

    def make(member: str, method: str, path: str) -> None:
        if "/snapshots" in path and "new" not in cluster.collections:
            cluster.make("new", points=5)
            cluster.aliases["alias"] = "new"

    cluster.before = make
    stored = Stored()
    taken = take(cluster, stored)
    assert taken.topology["made_during_backup"] == ["new"]
    assert (list(taken.topology["collections"]), stored.json("aliases.json")) == (["old"], [])


def test_a_collection_that_is_being_made_is_taken_once_its_shards_are_active(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cluster.make("young", points=5)
    made.shards[2].replicas = dict.fromkeys(made.shards[2].replicas, "Initializing")

    def sleep(seconds: float) -> None:
        cluster.waited.append(seconds)
        made.shards[2].replicas = dict.fromkeys(made.shards[2].replicas, "Active")

    monkeypatch.setattr(CANCELLATION, "sleep", sleep)
    taken = take(cluster)
    assert (taken.missing, count(taken, "young"), len(cluster.waited)) == ((), 5, 1)


def test_a_shard_that_moved_is_taken_from_where_it_is_now(cluster: Cluster) -> None:
    shard = cluster.make("moving", points=9, params={"replication_factor": 1}).shards[1]
    (source,) = shard.replicas
    target = next(peer for peer in cluster.ids.values() if peer != source)

    def move(member: str, method: str, path: str) -> None:
        if path.endswith("/shards/1/snapshots") and source in shard.replicas:
            shard.replicas = {target: "Active"}
            shard.points = {target: shard.points[source]}

    cluster.before = move
    taken = take(cluster)
    assert taken.missing == ()
    (where,) = (s for s in taken.topology["collections"]["moving"] if s["shard"] == 1)
    assert cluster.ids[where["taken_from"]] == target


def test_a_collection_that_cannot_be_taken_costs_the_set_that_collection_only(
    cluster: Cluster,
) -> None:
    made = cluster.make("broken", points=5)
    cluster.make("sound", points=5)
    made.shards[0].replicas = dict.fromkeys(made.shards[0].replicas, "Dead")
    stored = Stored()
    taken = take(cluster, stored)
    (missing,) = taken.missing
    assert missing.startswith("collection broken: ")
    assert "no active replica that can be reached" in missing
    assert list(taken.topology["collections"]) == ["sound"]
    assert not [name for name in stored.plain if name.startswith("broken/")]


def test_there_is_no_set_where_no_collection_could_be_taken(cluster: Cluster) -> None:
    made = cluster.make("broken", points=5)
    made.shards[0].replicas = dict.fromkeys(made.shards[0].replicas, "Dead")
    with pytest.raises(TemporaryError, match="no collection"):
        take(cluster)


def test_without_collections_the_set_is_empty_and_complete(cluster: Cluster) -> None:
    taken = take(cluster)
    assert (taken.missing, taken.topology["collections"]) == ((), {})


def test_a_peer_without_room_for_a_snapshot_makes_none(cluster: Cluster) -> None:
    cluster.make("large", points=5)
    cluster.make("small", points=5)
    cluster.disk = dict.fromkeys(cluster.members, (100 << 20, 99))
    stored = Stored()
    artefact = SimpleNamespace(name="large/shard-1.snapshot.zst.age", plain_size=9 << 20)
    before = cast(Any, SimpleNamespace(artefacts=(artefact,), outcome="partial"))
    stored.earlier = (before,)
    (missing,) = take(cluster, stored).missing
    assert missing.startswith("collection large: large, shard 1 on ")
    assert "enlarge the peer's volume" in missing


# ---------------------------------------------------------------------- between two full ones
def held(cluster: Cluster, name: str) -> Manifest:
    """A backup that holds a collection in its present state, as the catalogue lists it."""
    stored, begun = Stored(), datetime.now(UTC)
    taken = take(cluster, stored)
    unit = f"collection {name}"
    artefacts = tuple(
        Artefact(
            name=name, unit=stored.unit(name), format="f", plain_size=1, plain_sha256="",
            stored_size=1, stored_sha256="0" * 64, part_size=1,
        )
        for name in stored.plain
    )  # fmt: skip
    digests = artefacts[0].model_copy(update={"name": "digests.json", "format": FORM, "unit": "d"})
    assert unit in taken.states
    return a_set(
        0,
        id=new_identity("qdrant", begun, "0a0a0a"),
        component="qdrant",
        begun=begun,
        states=taken.states,
        artefacts=(*artefacts, digests),
        topology=taken.topology,
        fingerprint=taken.fingerprint,
    )


def again(cluster: Cluster, before: Manifest) -> tuple[BackupContent, Stored]:
    stored = Stored()
    stored.earlier = (before,)
    return take(cluster, stored), stored


def test_a_collection_that_has_not_changed_is_not_stored_again(cluster: Cluster) -> None:
    cluster.make("quiet", points=5)
    before = held(cluster, "quiet")
    taken, stored = again(cluster, before)
    assert list(stored.plain) == ["aliases.json"]
    assert taken.needs == (before.id,)
    assert count(taken, "quiet") == 5
    assert taken.topology["collections"] == before.topology["collections"]
    assert taken.states == before.states


def test_one_that_is_as_large_as_before_with_another_point_is_stored_again(
    cluster: Cluster,
) -> None:
    made = cluster.make("busy", points=5)
    before = held(cluster, "busy")
    for shard in made.shards.values():
        for points in shard.points.values():
            for point in points.values():
                point["payload"] = {"n": "other"}
    taken, stored = again(cluster, before)
    assert len(stored.names("Qdrant shard snapshot")) == 3
    assert taken.needs == ()


def test_one_with_another_setting_or_index_is_stored_again(cluster: Cluster) -> None:
    made = cluster.make("defined", points=5)
    before = held(cluster, "defined")
    made.config["hnsw_config"] = {"m": 32, "on_disk": False}
    assert again(cluster, before)[0].needs == ()
    before = held(cluster, "defined")
    made.indexes["n"] = {"data_type": "keyword"}
    assert again(cluster, before)[0].needs == ()


def test_one_that_clients_write_to_during_its_backup_is_stored_again_next_time(
    cluster: Cluster,
) -> None:
    cluster.make("written", points=5)

    def write(member: str, method: str, path: str) -> None:
        if path.endswith("/shards/2/snapshots") and method == "POST":
            cluster.fill("written", [len(cluster.requests) + 100])

    cluster.before = write
    assert take(cluster).states == {}
