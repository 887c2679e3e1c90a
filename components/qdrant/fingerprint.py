"""What a collection holds: exact count, and a digest of every point with payload and vectors.

Qdrant has no moment in time to ask at. So a collection is read before its snapshots are made and after: where both
give the same, so do the snapshots, and the digest counts; where it was written to meanwhile, only the count before is
kept.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

from archive.manifest import Measure
from components.access import Access, Endpoint
from components.qdrant.client import call

MASK = (1 << 128) - 1
PAGE = 500
PAGE_SECONDS = 120.0


def read_points(access: Access, peer: Endpoint, collection: str) -> tuple[int, str]:
    """Count and digest all points of a collection.

    Args:
        access: the way in.
        peer: through which one; it asks the others.
        collection: name.
    """
    path = f"/collections/{quote(collection, safe='')}/points/scroll"
    body: dict[str, Any] = {"limit": PAGE, "with_payload": True, "with_vector": True}
    count = total = crossed = 0
    while True:
        page = call(access, peer, "POST", path, body, timeout=PAGE_SECONDS)
        for point in page["points"]:
            kept = {key: point.get(key) for key in ("id", "payload", "vector", "shard_key")}
            text = json.dumps(kept, sort_keys=True).encode()
            number = int.from_bytes(blake2b(text, digest_size=16).digest(), "big")
            count, total, crossed = count + 1, (total + number) & MASK, crossed ^ number
        if page.get("next_page_offset") is None:
            return count, f"{total:032x}/{crossed:032x}"
        body["offset"] = page["next_page_offset"]


def measures(collection: str, before: tuple[int, str], after: tuple[int, str]) -> list[Measure]:
    """The measures of a collection, from two readings."""
    digest = before[1] if before == after and before[0] else ""
    return [
        Measure(
            unit=f"collection {collection}",
            item="points",
            count=before[0],
            digest=digest,
            origin="source",
        )
    ]
