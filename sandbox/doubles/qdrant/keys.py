"""Custom sharding: shards of named keys, and which of them a request means.

As qdrant/qdrant v1.19.0 has it: lib/collection/src/collection/sharding_keys.rs.
"""

from __future__ import annotations

from typing import Any

from sandbox.doubles.qdrant.errors import Refused
from sandbox.doubles.qdrant.points import shard_of

CUSTOM = "custom"


def shards_of(found: dict[str, Any], selector: Any) -> list[int]:
    """Numbers of the shards that a request is for.

    Args:
        found: the collection.
        selector: a key, several, or None for all shards.

    Raises:
        Refused: 404, there is no such key.
    """
    keys = found.get("keys") or {}
    if selector is None:
        return sorted(int(shard) for shard in found["shards"])
    chosen = []
    for key in selector if isinstance(selector, list) else [selector]:
        mine = [int(shard) for shard, its in keys.items() if same(its, key)]
        if not mine:
            raise Refused(404, f"Not found: Shard key {key} not found")
        chosen += mine
    return sorted(chosen)


def split(
    found: dict[str, Any], ids: list[int | str], selector: Any, *, writing: bool
) -> dict[int, list[int | str]]:
    """Point ids by shard; with several keys, or none, each id belongs to one shard of every key.

    Raises:
        Refused: 400, a write to shards of named keys says none.
    """
    keys = found.get("keys") or {}
    if found["spec"].get("sharding_method") == CUSTOM and selector is None and writing:
        raise Refused(400, "Bad request: Shard key not specified")
    groups: dict[str, list[int]] = {}
    for shard in shards_of(found, selector):
        groups.setdefault(repr(keys.get(str(shard))), []).append(shard)
    parts: dict[int, list[int | str]] = {}
    for shards in groups.values():
        for point in ids:
            parts.setdefault(shards[shard_of(point, len(shards))], []).append(point)
    return parts


def same(one: Any, other: Any) -> bool:
    """Whether two keys are the same: 1 is another one than "1"."""
    return type(one) is type(other) and bool(one == other)
