"""Creates a collection from its description. Limits are set last: they could refuse the restored points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from components.access import Access, Endpoint
from components.qdrant.client import call, copies_in, path_of

# Parts of a configuration, besides `params`, that a request to create a collection accepts
# (qdrant/qdrant lib/storage/src/content_manager/collection_meta_ops.rs: `CreateCollection`).
PARTS = ("hnsw_config", "wal_config", "quantization_config", "metadata")
# Keys of `params` that only an update accepts (`CollectionParamsDiff`); the creation ignores them.
LATER = ("read_fan_out_factor", "read_fan_out_delay_ms")
OFF = {"enabled": False}


def create(
    access: Access, peer: Endpoint, collection: str, about: Mapping[str, Any], seconds: float
) -> None:
    """Create an empty collection with the shards of its shard keys.

    Args:
        access: addresses and credentials.
        peer: the peer to ask.
        collection: its name.
        about: the backup's description and layout.
        seconds: time limit of each step.
    """
    request = _creation(about["collection"]["config"])
    call(access, peer, "PUT", path_of(collection), request, timeout=seconds)
    for key, numbers in by_key(copies_in(about["layout"])).items():
        if key is not None:
            body = {"shard_key": key, "shards_number": len(numbers)}
            call(access, peer, "PUT", f"{path_of(collection)}/shards", body, timeout=seconds)


def create_indexes(
    access: Access, peer: Endpoint, collection: str, about: Mapping[str, Any], seconds: float
) -> None:
    """Create the payload indexes of a collection."""
    for field, schema in about["collection"]["payload_schema"].items():
        body = {"field_name": field, "field_schema": schema.get("params") or schema["data_type"]}
        path = f"{path_of(collection)}/index?wait=true"
        call(access, peer, "PUT", path, body, timeout=seconds)


def set_limits(
    access: Access, peer: Endpoint, collection: str, about: Mapping[str, Any], seconds: float
) -> None:
    """Set the limits of strict mode, and settings that only an update accepts."""
    config = about["collection"]["config"]
    change = {
        "strict_mode_config": config.get("strict_mode_config"),
        "params": {key: config["params"][key] for key in LATER if key in config["params"]},
    }
    change = {key: value for key, value in change.items() if value}
    if change:
        call(access, peer, "PATCH", path_of(collection), change, timeout=seconds)


def by_key(copies: Iterable[Mapping[str, Any]]) -> dict[Any, list[int]]:
    """Shard key → numbers of its shards, in order. The key is None if there are no shard keys.

    Args:
        copies: replicas as Qdrant lists them. A key is a text or a number; 1 and "1" are different keys.
    """
    keys = {int(copy["shard_id"]): copy.get("shard_key") for copy in copies}
    numbers: dict[Any, list[int]] = {}
    for number, key in sorted(keys.items()):
        numbers.setdefault(key, []).append(number)
    return numbers


def places(
    name: str, backup_shards: Mapping[Any, list[int]], live_shards: Mapping[Any, list[int]]
) -> dict[int, int]:
    """Number of a shard in the backup → its number now. Qdrant numbers the shards of a new key by itself.

    Raises:
        RuntimeError: the collection was created with other shards.
    """
    if {key: len(numbers) for key, numbers in backup_shards.items()} != {
        key: len(numbers) for key, numbers in live_shards.items()
    }:
        raise RuntimeError(
            f"{name} was made with shards {dict(live_shards)} instead of {dict(backup_shards)}"
        )
    return {
        old: new
        for key, numbers in backup_shards.items()
        for old, new in zip(numbers, live_shards[key], strict=True)
    }


def _creation(config: Mapping[str, Any]) -> dict[str, Any]:
    """The request that creates a collection. Strict mode is off, even if the server's default is on."""
    request = {
        **{key: value for key, value in config["params"].items() if key not in LATER},
        **{part: config.get(part) for part in PARTS},
        "optimizers_config": config.get("optimizer_config"),
        "strict_mode_config": OFF,
    }
    return {key: value for key, value in request.items() if value is not None}
