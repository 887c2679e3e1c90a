"""Free space on a peer's disk. Snapshots are written there before a download and during an upload.

Since 1.19 a server reports how full its file system is, in whole percent (`GET /quotas`: qdrant/qdrant
lib/shard/src/quota/status.rs), and its size (`GET /telemetry`: src/common/telemetry_ops/app_telemetry.rs). With older
servers the space is not checked.
"""

from __future__ import annotations

from components.access import Access, Endpoint
from components.qdrant.client import Refused, get

KIB = 1024


def free_bytes(access: Access, peer: Endpoint) -> int | None:
    """Free bytes of a peer's storage, exact to one percent of its size; None if the server does not report it.

    Raises:
        httpx.HTTPError: the peer does not answer.
    """
    try:
        used = get(access, peer, "/quotas")["usage"].get("disk_usage_percent")
        telemetry = get(access, peer, "/telemetry?details_level=1")
    except Refused:
        return None
    size = (telemetry["app"].get("system") or {}).get("disk_size")
    if used is None or not size:
        return None
    return int(size) * KIB * (100 - int(used)) // 100


def as_text(size: int) -> str:
    """Bytes as text in GiB."""
    return f"{size / (1 << 30):.1f} GiB"
