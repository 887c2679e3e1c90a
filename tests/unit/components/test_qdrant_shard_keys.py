"""A collection with shards of named keys comes back with the same keys, each shard under its own.

Qdrant numbers the shards of a new key on from the highest one that is there, from 1 in an empty collection
(lib/collection/src/collection/sharding_keys.rs in qdrant/qdrant); the client answers so.
"""

from __future__ import annotations

from typing import Any, cast

import pytest

from archive.reader import SetReader
from components.qdrant import restore

CONFIG = {"config": {"params": {"sharding_method": "custom"}}, "payload_schema": {}}


class Server:
    """A collection that is restored: which shards it has, and what was put into them."""

    def __init__(self, made: list[dict[str, Any]]) -> None:
        self.shards = made
        self.uploads: dict[int, str] = {}

    def call(
        self, access: Any, peer: Any, method: str, path: str, body: Any = None, **_: Any
    ) -> None:
        if path.endswith("/shards"):
            highest = max((shard["shard_id"] for shard in self.shards), default=0)
            for number in range(body["shards_number"]):
                self.shards.append(copy(highest + 1 + number, body["shard_key"]))

    def upload(
        self, access: Any, peer: Any, reader: Any, name: str, shard: str, number: int
    ) -> None:
        self.uploads[number] = shard.rpartition("/")[2]


def copy(number: int, key: Any = None) -> dict[str, Any]:
    keyed = {} if key is None else {"shard_key": key}
    return {"shard_id": number, "peer_id": 7, "state": "Active", **keyed}


class Reader:
    def __init__(self, then: list[dict[str, Any]]) -> None:
        self.then = then

    def json(self, name: str) -> Any:
        layout = {"peer_id": 7, "local_shards": self.then, "remote_shards": []}
        return {"collection": CONFIG, "layout": layout}

    def names(self, form: str) -> list[str]:
        return [f"orders/shard-{one['shard_id']}.snapshot" for one in self.then]


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Any:
    def restored(then: list[dict[str, Any]], made: list[dict[str, Any]]) -> Server:
        server = Server(made)
        monkeypatch.setattr(restore, "call", server.call)
        monkeypatch.setattr(restore, "_upload", server.upload)
        monkeypatch.setattr(restore, "replicas", lambda *_: server.shards)
        backup = type("Backup", (), {"stall_seconds": 1.0})
        settings = type("Settings", (), {"backup": backup})
        access = type("Access", (), {"settings": settings})
        reader = cast(SetReader, Reader(then))
        restore.restore_collection(
            cast(Any, access), {"7": cast(Any, None)}, reader, "orders", None
        )
        return server

    return restored


def test_keys_keep_their_kind_their_order_and_their_number_of_shards(restored: Any) -> None:
    then = [copy(1, "west"), copy(2, "west"), copy(3, 1), copy(4, "1"), copy(5, 0)]
    server = restored(then, [])
    assert server.shards == then
    assert server.uploads == {number: f"shard-{number}.snapshot" for number in range(1, 6)}


def test_a_gap_that_a_deleted_key_left_is_closed(restored: Any) -> None:
    server = restored([copy(4, "east"), copy(9, "west"), copy(10, "west")], [])
    assert server.uploads == {1: "shard-4.snapshot", 2: "shard-9.snapshot", 3: "shard-10.snapshot"}


def test_without_keys_a_shard_keeps_its_number(restored: Any) -> None:
    server = restored([copy(0), copy(1)], [copy(0), copy(1)])
    assert server.uploads == {0: "shard-0.snapshot", 1: "shard-1.snapshot"}


def test_a_collection_that_was_made_otherwise_gets_nothing(restored: Any) -> None:
    with pytest.raises(RuntimeError, match="instead of"):
        restored([copy(0), copy(1)], [copy(0)])
