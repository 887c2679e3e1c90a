"""The fingerprint of a collection: every point with payload and vectors, the settings, the payload indexes.

Qdrant cannot be read at a point in time. So a collection is read before and after its snapshots. If both results are
equal, the snapshots have the same points, and the digest is kept. If clients wrote in between, only counts are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from archive.backup.manifest import Measure
from components.access import Access, Endpoint
from components.digest import Digest
from components.http import ANSWER_BYTES, NoProgress, TooLarge
from components.qdrant.client import call, get, names, path_of, replicas
from components.questions import PROBE

PAGE = 500
PAGE_SECONDS = 120.0
PAGE_BYTES = 16 << 20  # a parsed page needs several times as much memory
KEYS = ("id", "payload", "vector", "shard_key")
SETTINGS = "settings"
COLLECTIONS, NAMES = "collections", "names"


def measure_everything(access: Access, peer: Endpoint) -> list[Measure]:
    """Measure the whole cluster."""
    measures = []
    collections = [name for name in names(access, peer) if name != PROBE]
    for name in collections:
        measures += measure_whole(access, peer, name)
    aliases = get(access, peer, "/aliases")["aliases"]
    return [*measures, measure_names(collections), measure_aliases(aliases)]


def measure_whole(access: Access, peer: Endpoint, collection: str) -> list[Measure]:
    """Measure one collection: points, settings and indexes."""
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
        access: addresses and credentials.
        peer: the peer to ask; it asks the others.
        collection: its name.
        config: its configuration.
    """
    digest = Digest()
    copies = replicas(access, peer, collection)
    keys = {repr(copy.get("shard_key")): copy.get("shard_key") for copy in copies}
    # each shard key needs a scroll of its own: a scroll over all keys returns an id that exists under two keys only
    # once (lib/collection/src/collection/point_ops.rs: `scroll_by` merges the shards' pages by id)
    for key in keys.values():
        for point in _points(access, peer, collection, page_size(config), key):
            digest.add_document({part: point.get(part) for part in KEYS})
    return digest.measure(f"collection {collection}", "points")


def page_size(config: Mapping[str, Any]) -> int:
    """Points that one request may ask for: strict mode may have a limit."""
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
        limit_bytes = PAGE_BYTES if body["limit"] > 1 else ANSWER_BYTES
        try:
            page = call(
                access, peer, "POST", path, body, timeout=PAGE_SECONDS, answer_bytes=limit_bytes
            )
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
    """Count and digest the settings and payload indexes of a collection.

    Args:
        collection: its name.
        described: the server's description of it.
    """
    unit = f"collection {collection}"
    settings, indexes = Digest(), Digest()
    for name, value in sorted(settings_of(described["config"]).items()):
        settings.add_document((name, value), name)
    for field, schema in described["payload_schema"].items():
        # without the number of indexed points
        indexes.add_document((field, schema["data_type"], schema.get("params")), field)
    return [settings.measure(unit, SETTINGS), indexes.measure(unit, "payload indexes")]


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """A collection's configuration by dotted names. Values that equal a missing key are left out."""
    settings: dict[str, Any] = {}
    for part, value in config.items():
        if part == "metadata":  # a client's own document, in which null is a value
            settings |= {part: value} if value else {}
        elif isinstance(value, Mapping):
            settings |= {f"{part}.{key}": item for key, item in _without_nulls(value).items()}
        elif value is not None:
            settings[part] = value
    # a strict mode that is off equals one that was never set
    if settings.get("strict_mode_config.enabled") is False:
        del settings["strict_mode_config.enabled"]
    return settings


def measure_names(collections: Iterable[str]) -> Measure:
    """Count and digest the names of collections, so that a missing empty collection is detected."""
    digest = Digest()
    for name in collections:
        digest.add_document(name, name)
    return digest.measure(COLLECTIONS, NAMES)


def measure_aliases(aliases: Iterable[Mapping[str, Any]]) -> Measure:
    """Count and digest aliases."""
    digest = Digest()
    for alias in aliases:
        digest.add_document((alias["alias_name"], alias["collection_name"]), alias["alias_name"])
    return digest.measure("aliases", "aliases")


def comparable(measures: Iterable[Measure], expected: Iterable[Measure]) -> list[Measure]:
    """The measures, without items that backups of earlier versions did not measure."""
    items = {measure.item for measure in expected}
    return [
        measure
        for measure in measures
        if measure.item not in (SETTINGS, NAMES) or measure.item in items
    ]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value
