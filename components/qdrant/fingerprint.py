"""What a collection holds and how it is made: every point with payload and vectors, settings, payload indexes.

Qdrant has no moment in time to ask at. So a collection is read before its snapshots are made and after: where both
give the same, so do the snapshots, and the digest counts; where it was written to meanwhile, only the count before is
kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from archive.manifest import Measure
from components.access import Access, Endpoint
from components.digest import Digest
from components.http import ANSWER_BYTES, NoProgress, TooLarge
from components.qdrant.client import call, get, names, path_of, replicas
from components.questions import PROBE

PAGE = 500
PAGE_SECONDS = 120.0
PAGE_BYTES = 16 << 20  # parsed it takes several times as much
KEYS = ("id", "payload", "vector", "shard_key")
SETTINGS = "settings"
COLLECTIONS, NAMES = "collections", "names"


def measure_everything(access: Access, peer: Endpoint) -> list[Measure]:
    """Everything of a cluster, as a manifest has it."""
    found = []
    collections = [name for name in names(access, peer) if name != PROBE]
    for name in collections:
        found += measure_whole(access, peer, name)
    aliases = get(access, peer, "/aliases")["aliases"]
    return [*found, measure_names(collections), measure_aliases(aliases)]


def measure_whole(access: Access, peer: Endpoint, collection: str) -> list[Measure]:
    """Everything of one collection."""
    described = get(access, peer, path_of(collection))
    return [
        measure_points(access, peer, collection, described["config"]),
        *measure_definition(collection, described),
    ]


def measure_points(
    access: Access, peer: Endpoint, collection: str, config: Mapping[str, Any]
) -> Measure:
    """Count and digest all points of a collection.

    Args:
        access: the way in.
        peer: through which one; it asks the others.
        collection: name.
        config: of it.
    """
    found = Digest()
    copies = replicas(access, peer, collection)
    keys = {repr(copy.get("shard_key")): copy.get("shard_key") for copy in copies}
    # without its key a scroll of a collection with shard keys gives an id once that is there under two
    # (lib/collection/src/collection/point_ops.rs: `scroll_by` merges the shards' pages by id)
    for key in keys.values():
        for point in _points(access, peer, collection, page_size(config), key):
            found.add_document({part: point.get(part) for part in KEYS})
    return found.measure(f"collection {collection}", "points")


def page_size(config: Mapping[str, Any]) -> int:
    """How many points of a collection may be asked for at once: its strict mode may have a limit."""
    limits = config.get("strict_mode_config") or {}
    if not limits.get("enabled"):
        return PAGE
    return min(PAGE, int(limits.get("max_query_limit") or PAGE))


def _points(
    access: Access, peer: Endpoint, collection: str, limit: int, key: Any
) -> Iterator[dict[str, Any]]:
    path = f"{path_of(collection)}/points/scroll"
    body: dict[str, Any] = {"limit": limit, "with_payload": True, "with_vector": True}
    if key is not None:
        body["shard_key"] = key
    offsets: set[str] = set()
    while True:
        most = PAGE_BYTES if body["limit"] > 1 else ANSWER_BYTES
        try:
            page = call(access, peer, "POST", path, body, timeout=PAGE_SECONDS, answer_bytes=most)
        except TooLarge:
            if body["limit"] == 1:
                raise
            body["limit"] //= 2
            continue
        yield from page["points"]
        offset = page.get("next_page_offset")
        if offset is None:
            return
        if repr(offset) in offsets or not page["points"]:
            raise NoProgress(f"{peer.member} lists the points of {collection} without an end")
        offsets.add(repr(offset))
        body["offset"] = offset


def measure_definition(collection: str, described: Mapping[str, Any]) -> list[Measure]:
    """Count and digest how a collection is made: each setting by its name, each payload index.

    Args:
        collection: name.
        described: what the server says of it.
    """
    unit = f"collection {collection}"
    settings, indexes = Digest(), Digest()
    for name, value in sorted(settings_of(described["config"]).items()):
        settings.add_document((name, value), name)
    for field, schema in described["payload_schema"].items():
        # without the points that it counts itself
        indexes.add_document((field, schema["data_type"], schema.get("params")), field)
    return [settings.measure(unit, SETTINGS), indexes.measure(unit, "payload indexes")]


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """All of a collection's configuration by dotted names, without what says the same as its absence."""
    found: dict[str, Any] = {}
    for part, value in config.items():
        if part == "metadata":  # a client's own document, in which null says something
            found |= {part: value} if value else {}
        elif isinstance(value, Mapping):
            found |= {f"{part}.{key}": one for key, one in _without_nulls(value).items()}
        elif value is not None:
            found[part] = value
    # strict mode that was never set and strict mode that is off refuse nothing; its limits count once it is on
    if found.get("strict_mode_config.enabled") is False:
        del found["strict_mode_config.enabled"]
    return found


def measure_names(collections: Iterable[str]) -> Measure:
    """Count and digest the list of collections, so that an empty one that is missing is noticed."""
    found = Digest()
    for name in collections:
        found.add_document(name, name)
    return found.measure(COLLECTIONS, NAMES)


def measure_aliases(aliases: Iterable[Mapping[str, Any]]) -> Measure:
    """Count and digest aliases."""
    found = Digest()
    for alias in aliases:
        found.add_document((alias["alias_name"], alias["collection_name"]), alias["alias_name"])
    return found.measure("aliases", "aliases")


def comparable(found: Iterable[Measure], wanted: Iterable[Measure]) -> list[Measure]:
    """What was measured, without the kinds of things that sets of earlier versions of this project do not have."""
    measured = {one.item for one in wanted}
    return [one for one in found if one.item not in (SETTINGS, NAMES) or one.item in measured]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return value
