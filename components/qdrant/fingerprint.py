"""What a collection holds: exact count, and a digest of every point with payload and vectors.

Qdrant has no moment in time to ask at. So a collection is read before its snapshots are made and after: where both
give the same, so do the snapshots, and the digest counts; where it was written to meanwhile, only the count before is
kept.
"""

from __future__ import annotations

from typing import Any

from archive.manifest import Measure
from components.access import Access, Endpoint
from components.digest import Digest
from components.qdrant.client import call, get, path_of

PAGE = 500
PAGE_SECONDS = 120.0
KEYS = ("id", "payload", "vector", "shard_key")


def measure_collection(access: Access, peer: Endpoint, collection: str) -> Measure:
    """Count and digest all points of a collection.

    Args:
        access: the way in.
        peer: through which one; it asks the others.
        collection: name.
    """
    path = f"{path_of(collection)}/points/scroll"
    body: dict[str, Any] = {"limit": PAGE, "with_payload": True, "with_vector": True}
    found = Digest()
    while True:
        page = call(access, peer, "POST", path, body, timeout=PAGE_SECONDS)
        for point in page["points"]:
            found.add_document({key: point.get(key) for key in KEYS})
        if page.get("next_page_offset") is None:
            return found.measure(f"collection {collection}", "points")
        body["offset"] = page["next_page_offset"]


def measure_indexes(access: Access, peer: Endpoint, collection: str) -> Measure:
    """Count and digest the payload indexes of a collection, without what they count themselves."""
    found = Digest()
    for field, schema in get(access, peer, path_of(collection))["payload_schema"].items():
        found.add_document((field, schema["data_type"], schema.get("params")), field)
    return found.measure(f"collection {collection}", "payload indexes")


def measure_aliases(access: Access, peer: Endpoint) -> Measure:
    """Count and digest all aliases."""
    found = Digest()
    for alias in get(access, peer, "/aliases")["aliases"]:
        found.add_document((alias["alias_name"], alias["collection_name"]), alias["alias_name"])
    return found.measure("aliases", "aliases")
