"""The gate's transaction: points written to every shard of a collection of its own, read back, deleted.

Several rounds run at the same time (a deploy's gate, `isa status --watch`, a doctor): each has points of its own, and
leaves those of the others alone. What a killed round left is deleted by a later one, once no round can be that old.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any
from uuid import uuid4

from components.access import Access, Endpoint
from components.qdrant.client import Gone, Refused, call, get, path_of, replicas
from components.qdrant.fingerprint import page_size
from components.questions import PROBE

REPLICATION = 2
# Enough that none of the shards gets none: with 3 shards the odds against it are 1 : 10^10.
POINTS = 64
SIZE = 4
# A peer that hangs keeps a write waiting until the others have called its replicas dead: 8 s were measured.
WRITE_SECONDS = 15.0
# A round ends within 30 s (operations.health.gate); clocks of two machines differ by less than the rest.
LEFTOVER_SECONDS = 600.0
EXISTS = 409  # lib/storage/src/content_manager/errors.rs: `AlreadyExists`


def transact(
    access: Access,
    writer: Endpoint,
    reader: Endpoint,
    shards: int,
    peers: Collection[str],
    clock: Callable[[], float] = time.time,
) -> str:
    """Write points to all shards, read them through another peer, delete them and what killed rounds left.

    Args:
        access: the way in.
        writer: peer that is written through.
        reader: peer that is read through.
        shards: of the collection, if it is still to be made.
        peers: ids of those that answer: replicas that were lost with a peer are added there.
        clock: seconds since 1970.

    Returns:
        What was done, in words.

    Raises:
        RuntimeError: a point did not arrive, or the cluster refuses.
        httpx.HTTPError: a peer does not answer.
    """
    base = path_of(PROBE)
    _make(access, writer, shards)
    _add_replicas(access, writer, peers)
    ids = [str(uuid4()) for _ in range(POINTS)]
    payload = {"written": clock()}
    points = [{"id": identity, "vector": [1.0] * SIZE, "payload": payload} for identity in ids]
    body: dict[str, Any] = {"points": points}
    call(access, writer, "PUT", f"{base}/points?wait=true", body, timeout=WRITE_SECONDS)
    try:
        body = {"ids": ids, "with_payload": False, "with_vector": False}
        found = call(access, reader, "POST", f"{base}/points", body)
    finally:
        body = {"points": [*ids, *_leftovers(access, writer, clock())]}
        path = f"{base}/points/delete?wait=true"
        call(access, writer, "POST", path, body, timeout=WRITE_SECONDS)
    if len(found) != POINTS:
        raise RuntimeError(f"{reader.member} has {len(found)} of {POINTS} points")
    return f"{POINTS} points written through {writer.member}, read through {reader.member}"


def _make(access: Access, peer: Endpoint, shards: int) -> None:
    """Make the collection, unless it is there or another round is faster."""
    try:
        get(access, peer, path_of(PROBE))
        return
    except Gone:
        pass
    spec = {
        "vectors": {"size": SIZE, "distance": "Dot"},
        "shard_number": shards,
        "replication_factor": min(REPLICATION, shards),
        "write_consistency_factor": 1,
    }
    try:
        call(access, peer, "PUT", path_of(PROBE), spec, timeout=WRITE_SECONDS)
    except Refused as exc:
        if exc.status != EXISTS:
            raise


def _add_replicas(access: Access, peer: Endpoint, peers: Collection[str]) -> None:
    """Put replicas where they are missing: a peer whose volume was lost, and that joined again, has none.

    Nothing else adds them, and with the last replica of a shard the gate would call a Qdrant down that serves.
    The operation is `ReplicateShardOperation` (qdrant/qdrant lib/collection/src/operations/cluster_ops.rs).
    """
    active: dict[int, set[str]] = {}
    holders: dict[int, set[str]] = {}
    for copy in replicas(access, peer, PROBE):
        shard, where = int(copy["shard_id"]), str(copy["peer_id"])
        holders.setdefault(shard, set()).add(where)
        if copy["state"] == "Active" and where in peers:
            active.setdefault(shard, set()).add(where)
    params = get(access, peer, path_of(PROBE))["config"]["params"]
    for shard, sources in active.items():
        spare = sorted(set(peers) - holders[shard])
        if spare and len(holders[shard]) < int(params["replication_factor"]):
            wanted = {
                "shard_id": shard,
                "from_peer_id": int(min(sources)),
                "to_peer_id": int(spare[0]),
            }
            with suppress(Refused):  # another round has begun it
                call(access, peer, "POST", f"{path_of(PROBE)}/cluster", {"replicate_shard": wanted})


def _leftovers(access: Access, peer: Endpoint, now: float) -> list[Any]:
    """Points of rounds that were killed: too old for any that is still under way, or of an earlier version."""
    config = get(access, peer, path_of(PROBE))["config"]
    body = {"limit": page_size(config), "with_payload": True, "with_vector": False}
    page = call(access, peer, "POST", f"{path_of(PROBE)}/points/scroll", body)
    return [point["id"] for point in page["points"] if not _is_under_way(point.get("payload"), now)]


def _is_under_way(payload: Any, now: float) -> bool:
    """Whether a round that wrote this may still go on; whatever else lies in the collection is nobody's data."""
    written = payload.get("written") if isinstance(payload, dict) else None
    if isinstance(written, bool) or not isinstance(written, int | float):
        return False
    return now - LEFTOVER_SECONDS <= written <= now + LEFTOVER_SECONDS
