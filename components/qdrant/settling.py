"""Waits until every replica of a collection has what its shard has.

An uploaded snapshot is on one peer. The server then *proposes* that the shard's other replicas are dead, and answers
(qdrant/qdrant src/common/snapshots.rs: `recover_shard_snapshot_impl`): until that is agreed on they count as active,
empty as they are, and are read from. Then they are filled, one after another.
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
# Replicas that have been active for so long and still differ from one look to the next are being written to.
WRITTEN_SECONDS = 60.0


def wait_until_settled(
    access: Access,
    peers: Mapping[str, Endpoint],
    collection: str,
    stall: float,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait until all peers agree that all replicas are active, and those of each shard have equally many points.

    Args:
        access: the way in.
        peers: by their ids.
        collection: name.
        stall: seconds without a change after which it is given up.
        clock: tells seconds.

    Raises:
        TemporaryError: nothing changes any more.
    """
    before: object = None
    since = active_since = clock()
    while True:
        views, silent = _views(access, peers, collection)
        inactive, unequal = [*silent, *not_active(views)], not_equal(views)
        if not inactive and not unequal:
            return
        now = clock()
        changed = views != before
        before, since = views, now if changed else since
        active_since = now if inactive else active_since
        if changed and now - active_since > WRITTEN_SECONDS:
            return  # clients write: two peers are never counted at the same moment
        if now - since > stall:
            words = "; ".join([*inactive, *unequal])
            raise TemporaryError(f"{collection}: replicas do not become equal: {words}", delay=30)
        if changed:
            log.info("collection %s: waiting for %s", collection, "; ".join([*inactive, *unequal]))
        CANCELLATION.sleep(POLL_SECONDS)


def not_active(views: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Replicas that are not active, and those on their way, as any of the peers sees them.

    Args:
        views: a collection's layout, as each peer sees it, by the peer's name.
    """
    found: dict[str, None] = {}
    for view in views.values():
        for copy in copies_in(dict(view)):
            if copy["state"] != "Active":
                where = f"shard {copy['shard_id']} on peer {copy['peer_id']}"
                found[f"{where} is {copy['state']}"] = None
        for transfer in view.get("shard_transfers") or ():
            found[f"shard {transfer['shard_id']} is being transferred to peer {transfer['to']}"] = (
                None
            )
    return list(found)


def not_equal(views: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Shards whose replicas have not the same number of points."""
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
    """A collection's layout as each peer sees it, and what keeps one from telling."""
    views, silent = {}, []
    for peer in peers.values():
        try:
            views[peer.member] = layout(access, peer, collection)
        except (httpx.HTTPError, Refused) as exc:
            silent.append(f"{peer.member}: {exc}")
    return views, silent
