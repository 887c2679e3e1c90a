"""Why the live MinIO would refuse buckets of a backup. It is asked before the old ones are deleted.

A bucket's own quota refuses nothing: it is set behind the bucket's objects. What can be refused is objects that MinIO
encrypts where it has no keys, versions where it keeps none, and bytes beyond its drives (`errKMSNotConfigured`,
`isErasure` and `hasSpaceFor` in minio/minio, cmd).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

KMS = "encrypted"  # of a bucket, in a manifest's topology: whether MinIO encrypts anything in it
ONLINE, ERASURE = "online", "Erasure"
# Share of a drive beyond which MinIO writes nothing (`diskFillFraction`, cmd/erasure-sets.go).
FULL = 0.99


def refusals(
    buckets: Mapping[str, Mapping[str, Any]],
    chosen: Iterable[str],
    info: Mapping[str, Any],
    usage: Mapping[str, Any],
    there: Collection[str],
) -> list[str]:
    """Why buckets would be refused that are restored one after the other: `UNIT: reason` each.

    Args:
        buckets: of the backup, as its topology has them.
        chosen: names of those that are restored, in their order.
        info: answer of the admin API's `info`.
        usage: of its `datausageinfo`: what its scanner has counted.
        there: names of the live buckets.
    """
    free, counted = usable_bytes(info), usage.get("bucketsUsageInfo") or {}
    # a bucket that the scanner has not come to may hold all that is used
    unknown = {"size": usable_bytes(info, used=True)}
    found = []
    for name in chosen:
        about = buckets[name]
        freed = int((counted.get(name) or unknown)["size"]) if name in there else 0
        reasons = list(_unable(about, info))
        if int(about["bytes"]) > free + freed:
            room = f"it has {about['bytes']} bytes, and the drives have room for {free + freed}"
            reasons.append(room)
        found += [f"bucket {name}: {reason}" for reason in reasons]
        if not reasons:
            free += freed - int(about["bytes"])
    return found


def usable_bytes(info: Mapping[str, Any], *, used: bool = False) -> int:
    """Bytes of objects that may be added: an erasure set spreads them evenly over its drives, some of it parity.

    Args:
        info: answer of the admin API's `info`.
        used: those that are there instead.
    """
    parity = int(info.get("backend", {}).get("standardSCParity", 0))
    sets: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for server in info.get("servers") or []:
        for drive in server.get("drives") or []:
            place = (int(drive.get("pool_index", 0)), int(drive.get("set_index", 0)))
            sets.setdefault(place, []).append(drive)
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


def _unable(about: Mapping[str, Any], info: Mapping[str, Any]) -> Iterator[str]:
    services = info.get("services", {})
    kms = [services.get("kms") or {}, *(services.get("kmsStatus") or [])]
    if about.get(KMS) and not any(one.get("status") == ONLINE for one in kms):
        yield "it has objects encrypted with KMS keys, and this MinIO has no KMS"
    kind = str(info.get("backend", {}).get("backendType", ERASURE))
    if (about.get("versioning") or about.get("object_lock")) and kind != ERASURE:
        yield f"it has object versions, and this MinIO ({kind}) does not support versioning"
