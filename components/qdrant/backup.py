"""Backs up Qdrant: one active replica of every shard, the settings of collections, and aliases.

Each shard has a snapshot of its own, because a collection's snapshot has only the shards of one peer, and a cluster
offers no full snapshot (https://qdrant.tech/documentation/snapshots/). Neither has the aliases.

A collection whose points, definition and shards have not changed since the newest backup is not stored again: the
backup refers to the earlier one. Its points are read for that, but no snapshot is made.

During a backup clients create and drop collections, and operators move shards. A collection that fails is tried again
after the others, with the shards' places at that time. A collection that was dropped does not belong to the backup.
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

from archive.backup.encryption import SUFFIX
from archive.backup.folders import folder_name
from archive.backup.manifest import Consistency, Engine, Manifest, Measure
from archive.backup.references import References
from archive.backup.writer import SetWriter
from archive.catalogue.chain import open_chain
from cluster.command import CANCELLATION
from components.access import Access
from components.base import BackupContent
from components.digest import settled
from components.qdrant.client import Refused, copies_in, get, layout, names, path_of, told
from components.qdrant.collections.room import as_text, free_bytes
from components.qdrant.collections.snapshot import Download, NotTaken, Shard, snapshot, sweep
from components.qdrant.fingerprint import (
    measure_aliases,
    measure_definition,
    measure_names,
    measure_points,
)
from components.qdrant.peers import Peers, some_peers
from components.questions import PROBE
from errors import TemporaryError

log = logging.getLogger(__name__)

NOT_COVERED = (
    "a common recovery point of several shards: each is consistent in itself",
    "API keys and the peers' configuration (Helm values and Secrets: the backup of `platform`)",
    "more than one replica of a shard: a restore creates the others from it",
    "resource quotas of the cluster (`GET /quotas`)",
)
# More snapshots at a time would only compete for the peers' disks.
PARALLEL_SHARDS = 2
# A new collection has active shards within seconds; a peer restarts within a minute or two.
PAUSES_SECONDS = (0.0, 5.0, 15.0, 40.0, 60.0)


@dataclass(frozen=True)
class CollectionBackup:
    """The backup of one collection.

    Attributes:
        measures: its fingerprint.
        consistency: its recovery point.
        shards: its shards, for the manifest's topology.
    """

    measures: list[Measure]
    consistency: Consistency
    shards: list[dict[str, Any]]


def back_up(access: Access, writer: SetWriter) -> BackupContent:
    """Take one backup of all collections.

    Raises:
        TemporaryError: no peer answers, or no collection could be stored.
    """
    with _explained():
        peers = some_peers(access)
        sweep(access, {peer.member: peer for peer in peers.by_id.values()}, writer.cleanup)
        names_before = _names(access, peers)
        version = str(access.http.get(f"http://{peers.first.url}/").json()["version"])
        days = access.settings.backup.qdrant.full_every_days
        chain = open_chain(writer.earlier, days, interval=writer.interval)
        references = References(writer, chain)
        source = _Source(access, writer, references, version)
        results, missing = _collections(source, names_before)
        if missing and not results:
            why = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
            raise TemporaryError(f"no collection of Qdrant could be stored: {why}", delay=30)
        peers = some_peers(access)
        names_after = _names(access, peers)
        aliases = [
            alias
            for alias in get(access, peers.first, "/aliases")["aliases"]
            if alias["collection_name"] in results
        ]
        writer.add_json("aliases.json", "aliases", aliases)
    return BackupContent(
        engine=Engine(name="Qdrant", version=version),
        topology={
            "peers": peers.names,
            "collections": {name: result.shards for name, result in results.items()},
            "made_during_backup": sorted(set(names_after) - set(names_before)),
            "dropped_during_backup": sorted(set(names_before) - set(results) - set(missing)),
        },
        consistency=tuple(result.consistency for result in results.values()),
        fingerprint=(
            *(measure for result in results.values() for measure in result.measures),
            measure_names(results),
            measure_aliases(aliases),
        ),
        not_covered=NOT_COVERED,
        missing=tuple(f"collection {name}: {reason}" for name, reason in missing.items()),
        needs=references.needs,
        states=references.states,
    )


@dataclass(frozen=True)
class _Source:
    """What a backup works with.

    Attributes:
        access: addresses and settings.
        writer: of the backup.
        references: the collections that an earlier backup holds.
        version: of the server.
    """

    access: Access
    writer: SetWriter
    references: References
    version: str


def _collections(
    source: _Source, remaining: list[str]
) -> tuple[dict[str, CollectionBackup], dict[str, str]]:
    """Back up collections.

    Returns:
        Name → backup of the collection, and name → reason for existing collections that could not be stored.
    """
    results: dict[str, CollectionBackup] = {}
    missing: dict[str, str] = {}
    for pause in PAUSES_SECONDS:
        if missing:
            log.info("next attempt in %.0f s: %s", pause, missing)
            CANCELLATION.sleep(pause)
        missing = {}
        for name in remaining:
            try:
                results[name] = _collection(source, some_peers(source.access), name)
            except (NotTaken, Refused, httpx.HTTPError) as exc:
                source.writer.drop(f"{folder_name(name)}/")
                missing[name] = told(exc)
        live_names = _names(source.access, some_peers(source.access)) if missing else []
        missing = {name: reason for name, reason in missing.items() if name in live_names}
        remaining = list(missing)
    return results, missing


def _collection(source: _Source, peers: Peers, collection: str) -> CollectionBackup:
    """Back up one collection from the current places of its shards, unless it is unchanged."""
    access, writer, references = source.access, source.writer, source.references
    unit, peer = f"collection {collection}", peers.first
    begun = datetime.now(UTC)
    described = get(access, peer, path_of(collection))
    replicas_of = layout(access, peer, collection)
    shards = _shards(peers, replicas_of, collection)
    points_before = measure_points(access, peer, collection, described["config"])
    before = _state(source.version, points_before, collection, described, replicas_of)
    if held := references.unchanged(unit, before):
        return _as_held(held, unit, collection, begun)
    with ThreadPoolExecutor(PARALLEL_SHARDS, thread_name_prefix="shard") as pool:
        list(pool.map(lambda shard: _take(access, writer, shard), shards))
    points_after = measure_points(access, peer, collection, described["config"])
    about = {"collection": described, "layout": replicas_of}
    writer.add_json(f"{folder_name(collection)}/collection.json", unit, about)
    again = get(access, peer, path_of(collection))
    after = _state(
        source.version, points_after, collection, again, layout(access, peer, collection)
    )
    references.stored(unit, before, after)
    return CollectionBackup(
        [*settled([points_before], [points_after]), *measure_definition(collection, described)],
        Consistency(unit=unit, point="each shard by itself", begun=begun, ended=datetime.now(UTC)),
        [{"shard": s.number, "taken_from": s.peer.member, "key": s.key} for s in shards],
    )


def _state(
    version: str,
    points: Measure,
    collection: str,
    described: dict[str, Any],
    placement: dict[str, Any],
) -> dict[str, Any]:
    """What changes whenever a collection does; not where its shards are, and not the indexes that Qdrant derives."""
    measures = [points, *measure_definition(collection, described)]
    copies = sorted(
        [int(copy["shard_id"]), str(copy.get("shard_key"))] for copy in copies_in(placement)
    )
    counted = [[measure.item, measure.count, measure.digest] for measure in measures]
    return {"version": version, "measures": counted, "copies": copies}


def _as_held(held: Manifest, unit: str, collection: str, begun: datetime) -> CollectionBackup:
    """The backup of a collection that an earlier backup holds, and that has not changed since."""
    return CollectionBackup(
        [measure for measure in held.fingerprint if measure.unit == unit],
        Consistency(unit=unit, point="each shard by itself", begun=begun, ended=datetime.now(UTC)),
        held.topology["collections"][collection],
    )


def _shards(peers: Peers, placement: dict[str, Any], collection: str) -> list[Shard]:
    """An active, reachable replica of each shard. Shards are distributed over the peers."""
    by_shard: dict[int, list[dict[str, Any]]] = {}
    for replica in copies_in(placement):
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
    with snapshot(access, shard, writer.cleanup, stall) as created:
        unit = f"collection {shard.collection}"
        writer.add(
            name, unit, "Qdrant shard snapshot", Download(access, created, stall), created.size
        )


def _require_room(access: Access, shard: Shard, expected: int) -> None:
    """Check that the snapshot fits on the peer's disk, if its size and the free space are known."""
    free = free_bytes(access, shard.peer) if expected else None
    if free is not None and free < expected:
        raise NotTaken(
            f"{shard} has {as_text(free)} free and its snapshot needs about {as_text(expected)}: "
            "enlarge the peer's volume"
        )


def _size_before(earlier: tuple[Manifest, ...], name: str) -> int:
    """Bytes of the shard's snapshot in the newest backup; 0 if there is none."""
    artefacts = earlier[-1].artefacts if earlier else ()
    return next(
        (artefact.plain_size for artefact in artefacts if artefact.name == name + SUFFIX), 0
    )


def _names(access: Access, peers: Peers) -> list[str]:
    return [name for name in names(access, peers.first) if name != PROBE]


@contextmanager
def _explained() -> Iterator[None]:
    """Turn exceptions of the client into temporary errors."""
    try:
        yield
    except (httpx.HTTPError, Refused) as exc:
        raise TemporaryError(f"Qdrant: {told(exc)}", delay=15) from exc
