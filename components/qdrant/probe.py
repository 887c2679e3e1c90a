"""The gate's transaction: writes points to every shard of its own collection, reads them, deletes them.

Several rounds can run at the same time (a deploy's gate, `isa status --watch`, a doctor). Each has its own points and
does not touch the others'. Points of a killed round are deleted later, when no running round can be that old.
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
# Enough for a point in every shard: with 3 shards the probability of an empty one is 10^-10.
POINTS = 64
SIZE = 4
# A write waits for a hanging peer until the others mark its replicas as dead: measured 8 s.
WRITE_SECONDS = 15.0
# A round ends within 30 s (operations.health.gate); the rest is for differences between clocks.
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
    """Write points to all shards, read them through another peer, delete them and points of killed rounds.

    Args:
        access: addresses and credentials.
        writer: the peer to write through.
        reader: the peer to read through.
        shards: number of shards, if the collection does not exist yet.
        peers: ids of the peers that answer; missing replicas are added there.
        clock: seconds since 1970.

    Returns:
        A hint for the gate's check.

    Raises:
        RuntimeError: a point is missing, or the cluster refuses.
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
        read_points = call(access, reader, "POST", f"{base}/points", body)
    finally:
        body = {"points": [*ids, *_leftovers(access, writer, clock())]}
        path = f"{base}/points/delete?wait=true"
        call(access, writer, "POST", path, body, timeout=WRITE_SECONDS)
    if len(read_points) != POINTS:
        raise RuntimeError(f"{reader.member} has {len(read_points)} of {POINTS} points")
    return f"{POINTS} points written through {writer.member}, read through {reader.member}"


def _make(access: Access, peer: Endpoint, shards: int) -> None:
    """Create the collection, unless it exists or another round creates it first."""
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
    """Add missing replicas of the probe's collection. A peer that lost its volume and joined again has none.

    Nothing else adds them. Without replicas the gate would report a Qdrant that serves as down. The operation is
    `ReplicateShardOperation` (qdrant/qdrant lib/collection/src/operations/cluster_ops.rs).
    """
    active: dict[int, set[str]] = {}
    holders: dict[int, set[str]] = {}
    for copy in replicas(access, peer, PROBE):
        shard, holder = int(copy["shard_id"]), str(copy["peer_id"])
        holders.setdefault(shard, set()).add(holder)
        if copy["state"] == "Active" and holder in peers:
            active.setdefault(shard, set()).add(holder)
    params = get(access, peer, path_of(PROBE))["config"]["params"]
    for shard, sources in active.items():
        spare = sorted(set(peers) - holders[shard])
        if spare and len(holders[shard]) < int(params["replication_factor"]):
            transfer = {
                "shard_id": shard,
                "from_peer_id": int(min(sources)),
                "to_peer_id": int(spare[0]),
            }
            with suppress(Refused):  # another round has started it
                call(
                    access, peer, "POST", f"{path_of(PROBE)}/cluster", {"replicate_shard": transfer}
                )


def _leftovers(access: Access, peer: Endpoint, now: float) -> list[Any]:
    """Points of killed rounds: older than any running round, or written by an earlier version."""
    config = get(access, peer, path_of(PROBE))["config"]
    body = {"limit": page_size(config), "with_payload": True, "with_vector": False}
    page = call(access, peer, "POST", f"{path_of(PROBE)}/points/scroll", body)
    return [point["id"] for point in page["points"] if not _is_under_way(point.get("payload"), now)]


def _is_under_way(payload: Any, now: float) -> bool:
    """Whether the round that wrote a point may still run. The collection has no other data."""
    written = payload.get("written") if isinstance(payload, dict) else None
    if isinstance(written, bool) or not isinstance(written, int | float):
        return False
    return now - LEFTOVER_SECONDS <= written <= now + LEFTOVER_SECONDS
