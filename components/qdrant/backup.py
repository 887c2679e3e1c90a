"""Backs Qdrant up: one active replica of every shard, how collections are made, and aliases.

Shard by shard, since a collection's snapshot holds only the shards of the peer that is asked, and a full one is not
to be had of a cluster (https://qdrant.tech/documentation/snapshots/). Aliases are in neither.

Clients make and drop collections, and an operator moves shards, while all that runs. A collection that could not be
taken is tried again behind the others, from where its shards are then; what is gone by then does not belong to the
backup.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from archive.encryption import SUFFIX
from archive.folders import folder_name
from archive.manifest import Consistency, Engine, Manifest, Measure
from archive.writer import SetWriter
from cluster.command import CANCELLATION
from components.access import Access
from components.base import BackupContent
from components.digest import settled
from components.qdrant.client import Refused, copies_in, get, layout, names, path_of, told
from components.qdrant.fingerprint import (
    measure_aliases,
    measure_definition,
    measure_names,
    measure_points,
)
from components.qdrant.peers import Peers, some_peers
from components.qdrant.room import as_text, free_bytes
from components.qdrant.snapshot import Download, NotTaken, Shard, snapshot, sweep
from components.questions import PROBE
from errors import TemporaryError

log = logging.getLogger(__name__)

NOT_COVERED = (
    "a common recovery point of several shards: each is consistent in itself",
    "API keys and the peers' configuration (Helm values and Secrets: the backup of `platform`)",
    "more than one replica of a shard: a restore creates the others from it",
    "resource quotas of the cluster (`GET /quotas`)",
)
# Each peer writes one snapshot at a time; more would only compete for its disk.
PARALLEL_SHARDS = 2
# A collection that is being made has active shards within seconds, a peer that restarts is back within a minute or two.
PAUSES_SECONDS = (0.0, 5.0, 15.0, 40.0, 60.0)


@dataclass(frozen=True)
class CollectionTaken:
    """A collection that is in the backup.

    Attributes:
        measures: of it.
        consistency: its moment.
        shards: for the manifest's topology.
    """

    measures: list[Measure]
    consistency: Consistency
    shards: list[dict[str, Any]]


def back_up(access: Access, writer: SetWriter) -> BackupContent:
    """Take one backup of all collections.

    Raises:
        TemporaryError: no peer answers, or no collection could be taken.
    """
    with _explained():
        peers = some_peers(access)
        sweep(access, {peer.member: peer for peer in peers.by_id.values()}, writer.cleanup)
        begun_with = _names(access, peers)
        taken, missing = _collections(access, writer, begun_with)
        if missing and not taken:
            why = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
            raise TemporaryError(f"no collection of Qdrant could be stored: {why}", delay=30)
        peers = some_peers(access)
        ended_with = _names(access, peers)
        aliases = [
            alias
            for alias in get(access, peers.first, "/aliases")["aliases"]
            if alias["collection_name"] in taken
        ]
        writer.add_json("aliases.json", "aliases", aliases)
        about = access.http.get(f"http://{peers.first.url}/").json()
    return BackupContent(
        engine=Engine(name="Qdrant", version=str(about["version"])),
        topology={
            "peers": peers.names,
            "collections": {name: one.shards for name, one in taken.items()},
            "made_during_backup": sorted(set(ended_with) - set(begun_with)),
            "dropped_during_backup": sorted(set(begun_with) - set(taken) - set(missing)),
        },
        consistency=tuple(one.consistency for one in taken.values()),
        fingerprint=(
            *(measure for one in taken.values() for measure in one.measures),
            measure_names(taken),
            measure_aliases(aliases),
        ),
        not_covered=NOT_COVERED,
        missing=tuple(f"collection {name}: {reason}" for name, reason in missing.items()),
    )


def _collections(
    access: Access, writer: SetWriter, left: list[str]
) -> tuple[dict[str, CollectionTaken], dict[str, str]]:
    """Take collections.

    Returns:
        What was taken by its name; and why others that are still there could not be.
    """
    taken: dict[str, CollectionTaken] = {}
    missing: dict[str, str] = {}
    for pause in PAUSES_SECONDS:
        if missing:
            log.info("next attempt in %.0f s: %s", pause, missing)
            CANCELLATION.sleep(pause)
        missing = {}
        for name in left:
            try:
                taken[name] = _collection(access, writer, some_peers(access), name)
            except (NotTaken, Refused, httpx.HTTPError) as exc:
                writer.drop(f"{folder_name(name)}/")
                missing[name] = told(exc)
        there = _names(access, some_peers(access)) if missing else []
        missing = {name: reason for name, reason in missing.items() if name in there}
        left = list(missing)
    return taken, missing


def _collection(
    access: Access, writer: SetWriter, peers: Peers, collection: str
) -> CollectionTaken:
    """Take one collection from where its shards are now."""
    unit, first = f"collection {collection}", peers.first
    begun = datetime.now(UTC)
    described = get(access, first, path_of(collection))
    where = layout(access, first, collection)
    shards = _shards(peers, where, collection)
    before = measure_points(access, first, collection, described["config"])
    with ThreadPoolExecutor(PARALLEL_SHARDS, thread_name_prefix="shard") as pool:
        list(pool.map(lambda shard: _take(access, writer, shard), shards))
    after = measure_points(access, first, collection, described["config"])
    about = {"collection": described, "layout": where}
    writer.add_json(f"{folder_name(collection)}/collection.json", unit, about)
    return CollectionTaken(
        [*settled([before], [after]), *measure_definition(collection, described)],
        Consistency(unit=unit, point="each shard by itself", begun=begun, ended=datetime.now(UTC)),
        [{"shard": s.number, "taken_from": s.peer.member, "key": s.key} for s in shards],
    )


def _shards(peers: Peers, where: dict[str, Any], collection: str) -> list[Shard]:
    """For each shard a replica that is active and within reach; peers take turns."""
    by_shard: dict[int, list[dict[str, Any]]] = {}
    for replica in copies_in(where):
        by_shard.setdefault(int(replica["shard_id"]), []).append(replica)
    shards = []
    for number, copies in sorted(by_shard.items()):
        active = [c for c in copies if c["state"] == "Active" and str(c["peer_id"]) in peers.by_id]
        if not active:
            states = ", ".join(f"peer {c['peer_id']} {c['state']}" for c in copies)
            raise NotTaken(
                f"{collection}, shard {number} has no active replica that can be reached: {states}"
            )
        chosen = sorted(active, key=lambda c: str(c["peer_id"]))[number % len(active)]
        key = "" if chosen.get("shard_key") is None else str(chosen["shard_key"])
        shards.append(Shard(collection, number, peers.by_id[str(chosen["peer_id"])], key))
    return shards


def _take(access: Access, writer: SetWriter, shard: Shard) -> None:
    name = f"{folder_name(shard.collection)}/shard-{shard.number}.snapshot"
    _require_room(access, shard, _size_before(writer.earlier, name))
    stall = access.settings.backup.stall_seconds
    with snapshot(access, shard, writer.cleanup, stall) as made:
        unit = f"collection {shard.collection}"
        writer.add(name, unit, "Qdrant shard snapshot", Download(access, made, stall), made.size)


def _require_room(access: Access, shard: Shard, expected: int) -> None:
    """Whether the peer's disk takes the snapshot, as far as its size and the room are known."""
    free = free_bytes(access, shard.peer) if expected else None
    if free is not None and free < expected:
        raise NotTaken(
            f"{shard} has {as_text(free)} free and its snapshot needs about {as_text(expected)}: "
            "enlarge the peer's volume"
        )


def _size_before(earlier: tuple[Manifest, ...], name: str) -> int:
    """Bytes that the shard's snapshot had in the newest backup; 0 where there is none."""
    last = earlier[-1].artefacts if earlier else ()
    return next((one.plain_size for one in last if one.name == name + SUFFIX), 0)


def _names(access: Access, peers: Peers) -> list[str]:
    return [name for name in names(access, peers.first) if name != PROBE]


@contextmanager
def _explained() -> Iterator[None]:
    """What the client raises, as an error that may be tried again."""
    try:
        yield
    except (httpx.HTTPError, Refused) as exc:
        raise TemporaryError(f"Qdrant: {told(exc)}", delay=15) from exc
