"""Finds out, before the old buckets are deleted, why the live MinIO would refuse buckets of a backup.

MinIO can refuse encrypted objects if it has no KMS, versions if it has one drive only, and bytes that do not fit on its
drives (`errKMSNotConfigured`, `isErasure` and `hasSpaceFor` in minio/minio, cmd). A bucket's quota cannot refuse
anything: it is set after the objects were written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

KMS = "encrypted"  # key of a bucket in a manifest's topology: MinIO encrypts objects in it
ONLINE, ERASURE = "online", "Erasure"
# MinIO does not write to a drive that is fuller than this (`diskFillFraction`, cmd/erasure-sets.go).
FULL = 0.99


def refusals(
    buckets: Mapping[str, Mapping[str, Any]],
    chosen: Iterable[str],
    info: Mapping[str, Any],
    usage: Mapping[str, Any],
    live_names: Collection[str],
) -> list[str]:
    """Why MinIO would refuse buckets that are restored one after the other: a line `UNIT: reason` each.

    Args:
        buckets: the backup's buckets, from its topology.
        chosen: names of the buckets to restore, in order.
        info: answer of the admin API's `info`.
        usage: answer of its `datausageinfo`: the scanner's counts.
        live_names: names of the live buckets.
    """
    free, counted = usable_bytes(info), usage.get("bucketsUsageInfo") or {}
    # a bucket that the scanner has not counted yet may hold all used bytes
    unknown = {"size": usable_bytes(info, used=True)}
    lines = []
    for name in chosen:
        bucket = buckets[name]
        freed = int((counted.get(name) or unknown)["size"]) if name in live_names else 0
        reasons = list(_unable(bucket, info))
        if int(bucket["bytes"]) > free + freed:
            room = f"it has {bucket['bytes']} bytes, and the drives have room for {free + freed}"
            reasons.append(room)
        lines += [f"bucket {name}: {reason}" for reason in reasons]
        if not reasons:
            free += freed - int(bucket["bytes"])
    return lines


def usable_bytes(info: Mapping[str, Any], *, used: bool = False) -> int:
    """Bytes of objects that can be added. An erasure set spreads data and parity evenly over its drives.

    Args:
        info: answer of the admin API's `info`.
        used: return the bytes in use instead.
    """
    parity = int(info.get("backend", {}).get("standardSCParity", 0))
    sets: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for server in info.get("servers") or []:
        for drive in server.get("drives") or []:
            erasure_set = (int(drive.get("pool_index", 0)), int(drive.get("set_index", 0)))
            sets.setdefault(erasure_set, []).append(drive)
    return sum(
        (_largest_used if used else _smallest_free)(drives) * max(1, len(drives) - parity)
        for drives in sets.values()
    )


# ---------------------------------------------------------------------- inside
def _smallest_free(drives: list[Mapping[str, Any]]) -> int:
    working = [drive for drive in drives if drive.get("state") == "ok"]
    free = [
        int(drive.get("totalspace", 0) * FULL) - int(drive.get("usedspace", 0)) for drive in working
    ]
    return max(0, min(free, default=0))


def _largest_used(drives: list[Mapping[str, Any]]) -> int:
    return max(int(drive.get("usedspace", 0)) for drive in drives)


def _unable(bucket: Mapping[str, Any], info: Mapping[str, Any]) -> Iterator[str]:
    services = info.get("services", {})
    kms = [services.get("kms") or {}, *(services.get("kmsStatus") or [])]
    if bucket.get(KMS) and not any(service.get("status") == ONLINE for service in kms):
        yield "it has objects encrypted with KMS keys, and this MinIO has no KMS"
    kind = str(info.get("backend", {}).get("backendType", ERASURE))
    if (bucket.get("versioning") or bucket.get("object_lock")) and kind != ERASURE:
        yield f"it has object versions, and this MinIO ({kind}) does not support versioning"
