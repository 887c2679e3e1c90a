"""What comes back is compared with all of what was there; nothing is deleted that the cluster would not take back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from archive.backup.cleanup_journal import CleanupJournal
from cluster.command import CANCELLATION
from components.qdrant import live, restore
from components.qdrant.backup import back_up
from operations.verify.comparison import compare
from tests.unit.components.qdrant_fake import Cluster, Stored

STRICT = {"enabled": True, "max_query_limit": 3, "max_payload_index_count": 1}


class Restored:
    """A cluster, a set of it, and the ways back.

    Attributes:
        cluster: the live one.
        stored: the set.
        spool: directory.
    """

    def __init__(self, spool: Path) -> None:
        self.cluster, self.stored, self.spool = Cluster(), Stored(), spool

    def take(self) -> None:
        writer: Any = self.stored
        taken = back_up(self.cluster.access(), writer)
        assert taken.missing == ()
        self.stored.manifest.fingerprint = taken.fingerprint

    def refusals(self, *units: str) -> list[str]:
        reader: Any = self.stored
        return live.can_take(self.cluster.access(), reader, units)

    def into_live(self, *names: str) -> list[str]:
        """Restore collections; returns what was left alone."""
        reader: Any = self.stored
        units = [f"collection {name}" for name in names]
        assert self.refusals(*units) == []
        access = self.cluster.access(self.spool)
        return live.replace(access, None, reader, units, CleanupJournal())

    def differences(self, *names: str) -> list[str]:
        """What the live cluster has otherwise than the set."""
        reader: Any = self.stored
        units = [f"collection {name}" for name in names]
        found = live.measure(self.cluster.access(), reader, units)
        wanted = self.stored.wanted(*units)
        return [f"{one.item}: {one.what}" for one in compare(wanted, {"": found})]

    def proved(self, change: Any = lambda cluster: None) -> list[str]:
        """Restore everything into one peer, and compare; `change` may damage it before."""
        single, reader = Cluster(1), cast(Any, self.stored)
        access = single.access(self.spool)
        at = {"": access.endpoint("qdrant-0", 6333)}
        restore.load(access, at, reader)
        change(single)
        found = restore.measure(access, at, reader)
        return [
            f"{one.unit}, {one.item}: {one.what}"
            for one in compare(self.stored.manifest.fingerprint, found)
        ]


@pytest.fixture
def way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Restored:
    monkeypatch.setattr(CANCELLATION, "sleep", lambda seconds: None)
    return Restored(tmp_path)


# ---------------------------------------------------------------------- a proof
def test_all_kinds_of_collections_come_back_into_one_peer_without_a_difference(
    way: Restored,
) -> None:
    way.cluster.make("plain", points=50)
    way.cluster.make("odd #1 %41?", points=3, metadata={"model": "m", "v": None})
    way.cluster.make("empty", params={"read_fan_out_factor": 2, "write_consistency_factor": 2})
    indexed = way.cluster.make("strict", points=20, strict_mode_config=STRICT)
    indexed.indexes = {"n": {"data_type": "keyword"}}
    way.cluster.keyed("orders", "west", 1, "1")
    for key in ("west", 1, "1"):
        way.cluster.fill("orders", range(20), key)
    way.cluster.aliases = {"live": "plain"}
    way.take()
    assert way.proved() == []


def test_a_missing_empty_collection_is_noticed(way: Restored) -> None:
    way.cluster.make("empty")
    way.cluster.make("plain", points=1)
    way.take()
    found = way.proved(lambda cluster: cluster.collections.pop("empty"))
    assert "collections, names: 1 instead of 2: missing empty" in found


@pytest.mark.parametrize(
    ("part", "change", "name"),
    [
        ("metadata", {"model": "other"}, "metadata"),
        ("hnsw_config", {"m": 32}, "hnsw_config.m"),
        ("params", {"on_disk_payload": False}, "params.on_disk_payload"),
        ("strict_mode_config", {"max_query_limit": 4}, "strict_mode_config.max_query_limit"),
        ("optimizer_config", {"max_segment_size": 5}, "optimizer_config.max_segment_size"),
    ],
)
def test_another_setting_is_noticed_by_its_name(
    part: str, change: dict[str, Any], name: str, way: Restored
) -> None:
    config = {"metadata": {"model": "m"}, "strict_mode_config": dict(STRICT)}
    way.cluster.make("plain", points=1, **config)
    way.take()

    def edit(cluster: Cluster) -> None:
        config = cluster.collections["plain"].config
        config[part] = {**config[part], **change}

    (found,) = way.proved(edit)
    assert found.startswith("collection plain, settings: ")
    assert name in found


def test_points_that_only_one_of_two_keys_lost_are_noticed(way: Restored) -> None:
    way.cluster.keyed("orders", "east", "west")
    for key in ("east", "west"):
        way.cluster.fill("orders", range(20), key)
    way.take()

    def lose(cluster: Cluster) -> None:
        for shard in cluster.collections["orders"].shards.values():
            if shard.key == "west":
                shard.points = {peer: {} for peer in shard.points}

    assert way.proved(lose) == ["collection orders, points: 20 instead of 40"]


def test_a_set_that_knows_no_settings_yet_passes_its_proof(way: Restored) -> None:
    way.cluster.make("plain", points=5)
    way.take()
    old = [m for m in way.stored.manifest.fingerprint if m.item not in ("settings", "names")]
    way.stored.manifest.fingerprint = tuple(old)
    assert way.proved() == []


# ---------------------------------------------------------------------- into the live cluster
def test_a_live_restore_ends_when_all_replicas_have_their_points(way: Restored) -> None:
    way.cluster.make("plain", points=300)
    way.take()
    way.cluster.make("plain", points=2)
    way.into_live("plain")
    replicas = way.cluster.count("plain")
    assert sum(replicas) == 600
    assert way.differences("plain") == []


def test_limits_do_not_refuse_what_was_there_before_them(way: Restored) -> None:
    made = way.cluster.make("full", points=9, strict_mode_config=STRICT, metadata={"a": 1})
    made.indexes = {"n": {"data_type": "keyword"}, "m": {"data_type": "integer"}}
    way.take()
    way.into_live("full")
    assert way.differences("full") == []
    assert way.cluster.collections["full"].config["strict_mode_config"] == STRICT


def test_an_alias_that_points_to_another_collection_by_now_is_left_and_told(way: Restored) -> None:
    way.cluster.make("old", points=1)
    way.cluster.make("new", points=1)
    way.cluster.aliases = {"live": "old", "archive": "old"}
    way.take()
    way.cluster.aliases["live"] = "new"
    (left,) = way.into_live("old")
    assert "live still points to new" in left
    assert way.cluster.aliases == {"live": "new", "archive": "old"}


def test_of_all_collections_the_aliases_come_back_as_in_the_set(way: Restored) -> None:
    way.cluster.make("old", points=1)
    way.cluster.make("new", points=1)
    way.cluster.aliases = {"live": "old"}
    way.take()
    way.cluster.aliases = {"live": "new"}
    assert way.into_live("old", "new") == []
    assert way.cluster.aliases == {"live": "old"}


def test_a_collection_of_another_shape_is_restored_with_its_keys_of_any_kind(way: Restored) -> None:
    way.cluster.keyed("orders", "west", 1)
    way.cluster.fill("orders", range(9), "west")
    way.take()
    way.cluster.collections.clear()
    way.into_live("orders")
    assert way.differences("orders") == []


# ---------------------------------------------------------------------- what the cluster would not take
def test_with_a_lost_peer_that_the_cluster_remembers_nothing_is_deleted(way: Restored) -> None:
    way.cluster.make("plain", points=5)
    way.take()
    way.cluster.lost = {99: "http://10.0.0.99:6335/"}
    way.cluster.requests.clear()
    (refusal,) = way.refusals("collection plain")
    assert refusal.startswith("collection plain: peer 99 (http://10.0.0.99:6335/) is registered")
    assert not [one for one in way.cluster.requests if one.startswith("DELETE")]


def test_a_peer_without_consensus_takes_no_collection(way: Restored) -> None:
    way.cluster.make("plain")
    way.take()
    way.cluster.stopped = {"qdrant-1": "no space left"}
    (refusal,) = way.refusals("collection plain")
    assert "qdrant-1: its consensus is stopped_with_err (no space left)" in refusal


def test_a_name_that_is_something_of_the_other_kind_by_now_is_refused_and_costs_no_other(
    way: Restored,
) -> None:
    for name in ("first", "second", "third"):
        way.cluster.make(name)
    way.cluster.aliases = {"alias": "second"}
    way.take()
    del way.cluster.collections["first"]
    way.cluster.make("first_v2")
    way.cluster.make("alias")
    way.cluster.aliases = {"first": "first_v2"}
    refusals = way.refusals("collection first", "collection second", "collection third")
    assert [one.partition(":")[0] for one in refusals] == ["collection first", "collection second"]
    assert "first is now an alias of first_v2" in refusals[0]
    assert "its alias alias is now a collection" in refusals[1]


def test_room_is_asked_for_where_the_server_tells_it(way: Restored) -> None:
    way.cluster.make("plain", points=2000)
    way.take()
    assert way.refusals("collection plain") == []
    way.cluster.disk = {"qdrant-2": (1 << 20, 100)}
    (refusal,) = way.refusals("collection plain")
    assert "qdrant-2 has 0.0 GiB free and needs" in refusal


def test_a_collection_is_filled_through_active_replicas_only(way: Restored) -> None:
    way.cluster.make("plain", points=30)
    way.take()
    way.cluster.collections.clear()
    gone = way.cluster.ids["qdrant-2"]

    def kill(member: str, method: str, path: str) -> None:
        if method == "GET" and path == "/collections/plain/cluster":
            for shard in way.cluster.collections["plain"].shards.values():
                if gone in shard.replicas and not shard.points[gone]:
                    shard.replicas[gone] = "Dead"
                    shard.filling.setdefault(gone, 20)

    way.cluster.before = kill
    way.into_live("plain")
    assert way.differences("plain") == []


def test_shards_that_are_still_being_made_are_waited_for(way: Restored) -> None:
    way.cluster.keyed("orders", "west")
    way.cluster.fill("orders", range(9), "west")
    way.take()
    way.cluster.collections.clear()
    states = iter(["Initializing"] * 3 + ["Active"])

    def make(member: str, method: str, path: str) -> None:
        if method == "GET" and path == "/collections/orders/cluster":
            state = next(states, None)
            if state is None:
                return
            for shard in way.cluster.collections["orders"].shards.values():
                shard.replicas = dict.fromkeys(shard.replicas, state)

    way.cluster.before = make
    way.into_live("orders")
    way.cluster.before = lambda *_: None
    assert way.differences("orders") == []


def test_a_unit_that_the_set_does_not_hold_is_no_reason_to_refuse(way: Restored) -> None:
    way.cluster.make("plain")
    way.take()
    assert way.refusals("collection plain", "collection gone") == []


def test_a_collection_without_any_shard_is_a_unit_too(way: Restored) -> None:
    way.cluster.keyed("orders")
    way.take()
    reader: Any = way.stored
    assert live.units(reader) == {"collection orders": 0}
    way.cluster.collections.clear()
    way.into_live("orders")
    assert way.differences("orders") == []


@pytest.mark.parametrize("name", ["y" * 255, "ü" * 127, "%" * 255])
def test_a_collection_with_a_long_name_fits_into_any_store_and_comes_back(
    name: str, way: Restored
) -> None:
    longer = f"{name[:-1]}z"  # the same beginning
    for each, points in ((name, 3), (longer, 5)):
        way.cluster.make(each, points=points)
    way.take()
    folders = {part for stored in way.stored.names("JSON") for part in stored.split("/")[:-1]}
    assert len(folders) == 2
    assert all(len(folder) <= 255 for folder in folders)
    assert way.proved() == []
    del way.cluster.collections[name]
    assert way.into_live(name) == []
    assert way.differences(name, longer) == []
