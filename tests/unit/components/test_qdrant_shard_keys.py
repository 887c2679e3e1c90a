"""A shard takes the place of the one that it was: under its own key, whatever numbers the server gives now.

Qdrant numbers the shards of a new key on from the highest one that is there, from 1 in an empty collection
(lib/collection/src/collection/sharding_keys.rs in qdrant/qdrant).
"""

from __future__ import annotations

from typing import Any

import pytest

from components.qdrant.collections.creation import by_key, places


def copy(number: int, key: Any = None) -> dict[str, Any]:
    keyed = {} if key is None else {"shard_key": key}
    return {"shard_id": number, "peer_id": 7, "state": "Active", **keyed}


def placed(then: list[dict[str, Any]], now: list[dict[str, Any]]) -> dict[int, int]:
    return places("orders", by_key(then), by_key(now))


def test_keys_keep_their_kind_their_order_and_their_number_of_shards() -> None:
    then = [copy(1, "west"), copy(2, "west"), copy(3, 1), copy(4, "1"), copy(5, 0)]
    assert by_key(then) == {"west": [1, 2], 1: [3], "1": [4], 0: [5]}
    assert placed(then, then) == {number: number for number in range(1, 6)}


def test_a_gap_that_a_deleted_key_left_is_closed() -> None:
    then = [copy(4, "east"), copy(9, "west"), copy(10, "west")]
    now = [copy(1, "east"), copy(2, "west"), copy(3, "west")]
    assert placed(then, now) == {4: 1, 9: 2, 10: 3}


def test_without_keys_a_shard_keeps_its_number() -> None:
    assert placed([copy(0), copy(1)], [copy(0), copy(1)]) == {0: 0, 1: 1}


def test_a_collection_that_was_made_otherwise_gets_nothing() -> None:
    with pytest.raises(RuntimeError, match="instead of"):
        placed([copy(0), copy(1)], [copy(0)])
