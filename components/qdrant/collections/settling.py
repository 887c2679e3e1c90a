"""Waits until every replica of a collection has all points of its shard.

An uploaded snapshot is on one peer only. The server then *proposes* that the shard's other replicas are dead, and
answers (qdrant/qdrant src/common/snapshots.rs: `recover_shard_snapshot_impl`). Until the peers agree, the empty
replicas count as active and serve reads. After that they are filled one after another.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from cluster.command import CANCELLATION
from components.access import Access, Endpoint
from components.qdrant.client import Refused, copies_in, layout
from errors import TemporaryError

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
# If replicas have been active for so long and their counts still change, clients are writing.
WRITTEN_SECONDS = 60.0


def wait_until_settled(
    access: Access,
    peers: Mapping[str, Endpoint],
    collection: str,
    stall: float,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait until all replicas are active on every peer, and the replicas of each shard have equal counts.

    Args:
        access: addresses and credentials.
        peers: id → peer.
        collection: its name.
        stall: seconds without a change until the wait fails.
        clock: monotonic seconds.

    Raises:
        TemporaryError: nothing has changed for `stall` seconds.
    """
    last_views: object = None
    since = active_since = clock()
    while True:
        views, silent = _views(access, peers, collection)
        inactive, unequal = [*silent, *not_active(views)], not_equal(views)
        if not inactive and not unequal:
            return
        now = clock()
        changed = views != last_views
        last_views, since = views, now if changed else since
        active_since = now if inactive else active_since
        if changed and now - active_since > WRITTEN_SECONDS:
            return  # clients are writing, and two peers cannot be counted at the same moment
        if now - since > stall:
            problems = "; ".join([*inactive, *unequal])
            raise TemporaryError(
                f"{collection}: replicas do not become equal: {problems}", delay=30
            )
        if changed:
            log.info("collection %s: waiting for %s", collection, "; ".join([*inactive, *unequal]))
        CANCELLATION.sleep(POLL_SECONDS)


def not_active(views: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Replicas that are not active, and running transfers, as reported by any peer.

    Args:
        views: name of a peer → its layout of the collection.
    """
    lines: dict[str, None] = {}
    for view in views.values():
        for copy in copies_in(dict(view)):
            if copy["state"] != "Active":
                replica = f"shard {copy['shard_id']} on peer {copy['peer_id']}"
                lines[f"{replica} is {copy['state']}"] = None
        for transfer in view.get("shard_transfers") or ():
            lines[f"shard {transfer['shard_id']} is being transferred to peer {transfer['to']}"] = (
                None
            )
    return list(lines)


def not_equal(views: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Shards whose replicas have different numbers of points."""
    counts: dict[int, dict[str, int]] = {}
    for name, view in views.items():
        for own in view["local_shards"]:
            counts.setdefault(int(own["shard_id"]), {})[name] = int(own["points_count"])
    return [
        f"shard {shard} has {', '.join(f'{n} points on {peer}' for peer, n in by_peer.items())}"
        for shard, by_peer in sorted(counts.items())
        if len(set(by_peer.values())) > 1
    ]


def _views(
    access: Access, peers: Mapping[str, Endpoint], collection: str
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Name of a peer → its layout of the collection, and the errors of peers that do not answer."""
    views, silent = {}, []
    for peer in peers.values():
        try:
            views[peer.member] = layout(access, peer, collection)
        except (httpx.HTTPError, Refused) as exc:
            silent.append(f"{peer.member}: {exc}")
    return views, silent
