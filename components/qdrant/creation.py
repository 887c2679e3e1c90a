"""Makes a collection like one that was described: first without its limits, which would refuse what is restored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from components.access import Access, Endpoint
from components.qdrant.client import call, copies_in, path_of

# Of a collection's configuration: what its maker may say beside `params`
# (qdrant/qdrant lib/storage/src/content_manager/collection_meta_ops.rs: `CreateCollection`).
PARTS = ("hnsw_config", "wal_config", "quantization_config", "metadata")
# Of `params`: what only a change of a collection that is there takes (`CollectionParamsDiff`); its making ignores them.
LATER = ("read_fan_out_factor", "read_fan_out_delay_ms")
OFF = {"enabled": False}


def create(
    access: Access, peer: Endpoint, collection: str, about: Mapping[str, Any], seconds: float
) -> None:
    """Make a collection with its shards of named keys, empty.

    Args:
        access: the way in.
        peer: through which one.
        collection: name.
        about: description and layout of the backup.
        seconds: limit of each step.
    """
    wanted = _creation(about["collection"]["config"])
    call(access, peer, "PUT", path_of(collection), wanted, timeout=seconds)
    for key, numbers in by_key(copies_in(about["layout"])).items():
        if key is not None:
            body = {"shard_key": key, "shards_number": len(numbers)}
            call(access, peer, "PUT", f"{path_of(collection)}/shards", body, timeout=seconds)


def create_indexes(
    access: Access, peer: Endpoint, collection: str, about: Mapping[str, Any], seconds: float
) -> None:
    """Make a collection's payload indexes."""
    for field, schema in about["collection"]["payload_schema"].items():
        body = {"field_name": field, "field_schema": schema.get("params") or schema["data_type"]}
        path = f"{path_of(collection)}/index?wait=true"
        call(access, peer, "PUT", path, body, timeout=seconds)


def set_limits(
    access: Access, peer: Endpoint, collection: str, about: Mapping[str, Any], seconds: float
) -> None:
    """Set what would have refused a part of the restore, and what only a change takes."""
    config = about["collection"]["config"]
    change = {
        "strict_mode_config": config.get("strict_mode_config"),
        "params": {key: config["params"][key] for key in LATER if key in config["params"]},
    }
    change = {key: value for key, value in change.items() if value}
    if change:
        call(access, peer, "PATCH", path_of(collection), change, timeout=seconds)


def by_key(copies: Iterable[Mapping[str, Any]]) -> dict[Any, list[int]]:
    """Numbers of the shards of each shard key, in order; the key is None if there are no shard keys.

    Args:
        copies: of shards, as Qdrant lists them: a key is a text or a number, and 1 is another one than "1".
    """
    keys = {int(copy["shard_id"]): copy.get("shard_key") for copy in copies}
    found: dict[Any, list[int]] = {}
    for number, key in sorted(keys.items()):
        found.setdefault(key, []).append(number)
    return found


def places(
    name: str, then: Mapping[Any, list[int]], now: Mapping[Any, list[int]]
) -> dict[int, int]:
    """Which shard takes which one's place: Qdrant numbers those of a new key on, whatever the old ones were.

    Raises:
        RuntimeError: the collection was made with other shards.
    """
    if {key: len(numbers) for key, numbers in then.items()} != {
        key: len(numbers) for key, numbers in now.items()
    }:
        raise RuntimeError(f"{name} was made with shards {dict(now)} instead of {dict(then)}")
    return {
        old: new
        for key, numbers in then.items()
        for old, new in zip(numbers, now[key], strict=True)
    }


def _creation(config: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a collection like one that was described; strict mode is off, also where the server has it on."""
    wanted = {
        **{key: value for key, value in config["params"].items() if key not in LATER},
        **{part: config.get(part) for part in PARTS},
        "optimizers_config": config.get("optimizer_config"),
        "strict_mode_config": OFF,
    }
    return {key: value for key, value in wanted.items() if value is not None}
