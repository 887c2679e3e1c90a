"""Reads: ask one replica of each shard, preferably the one on this peer."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from sandbox.doubles.qdrant.errors import Refused, unavailable
from sandbox.doubles.qdrant.peer import ACTIVE
from sandbox.doubles.qdrant.peers import operations
from sandbox.doubles.qdrant.peers.replication import Replication

READ_SECONDS = 20.0


def read(
    replication: Replication,
    found: dict[str, Any],
    question: dict[str, Any],
    shards: list[int] | None = None,
) -> list[Any]:
    """Ask one replica of each shard.

    Args:
        replication: this peer's replication.
        found: the collection.
        question: the query for each shard.
        shards: numbers of the shards; all if left out.

    Raises:
        Refused: 500, no replica of a shard answers; otherwise the refusal of a replica.
    """
    wanted = sorted(int(shard) for shard in found["shards"]) if shards is None else shards
    return [_ask(replication, found["uid"], shard, question) for shard in wanted]


def _ask(replication: Replication, uid: str, shard: int, question: dict[str, Any]) -> Any:
    peer, network = replication.peer, replication.peer.network
    owners = [o for o, state in replication.replicas(uid, shard).items() if state == ACTIVE]
    if peer.me.name in owners:
        return operations.ask(peer.local(uid, shard), question)
    failed = []
    for owner in owners:
        other, path = network.peers[owner], f"ask/{quote(uid, safe='')}/{shard}"
        version = peer.meta["version"]
        said = network.call(other, "POST", path, question, version=version, seconds=READ_SECONDS)
        if said is not None and said.status_code == 200:
            return said.json()
        if said is not None and 400 <= said.status_code < 500 and said.status_code != 404:
            raise Refused(said.status_code, said.json()["error"])
        words = unavailable(other.uri) if said is None else said.json()["error"]
        failed.append(f"  Service internal error: {words}")
    count = len(failed)
    lines = "\n".join([f"{count} of {count} read operations failed:", *failed])
    raise Refused(500, f"Service internal error: {lines}")
