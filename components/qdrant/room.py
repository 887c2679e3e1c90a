"""Room on a peer's disk: a snapshot is written there before it is downloaded, and once more when it is uploaded.

A server tells since 1.19 how full the file system of its storage is, in whole percents (`GET /quotas`:
qdrant/qdrant lib/shard/src/quota/status.rs), and how large it is (`GET /telemetry`: src/common/telemetry_ops/
app_telemetry.rs). An older one does not, and is then not asked for room.
"""

from __future__ import annotations

from components.access import Access, Endpoint
from components.qdrant.client import Refused, get

KIB = 1024


def free_bytes(access: Access, peer: Endpoint) -> int | None:
    """Free bytes of a peer's storage, one percent of it more or less; None where the server does not tell.

    Raises:
        httpx.HTTPError: it does not answer.
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
    """Bytes for people."""
    return f"{size / (1 << 30):.1f} GiB"
