"""Backs Qdrant up: one active replica of every shard, how collections are made, and aliases.

Shard by shard, since a collection's snapshot holds only the shards of the peer that is asked, and a full one is not
to be had of a cluster (https://qdrant.tech/documentation/snapshots/). Aliases are in neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx

from archive.manifest import Consistency, Engine, Measure
from archive.writer import SetWriter
from components.access import Access, Endpoint
from components.base import Taken
from components.digest import settled
from components.qdrant.client import PORT, STATEFULSET, get, layout, path_of, replicas
from components.qdrant.fingerprint import measure_aliases, measure_collection, measure_indexes
from components.qdrant.snapshot import Download, Shard, snapshot, sweep
from components.questions import PROBE, ask_members, words
from errors import TemporaryError

NOT_COVERED = (
    "a common moment of several shards: each is consistent in itself",
    "API keys and the peers' configuration (Helm values and Secrets have them: set `platform`)",
    "more than one replica of a shard: a restore makes the others anew",
)
# Each peer writes one snapshot at a time; more would only compete for its disk.
PARALLEL_SHARDS = 2


def back_up(access: Access, writer: SetWriter) -> Taken:
    """Take one set of all collections.

    Raises:
        TemporaryError: a shard has no active replica within reach, or its snapshot broke off.
    """
    with _explained():
        peers, names = _peers(access)
        first = next(iter(peers.values()))
        sweep(access, {peer.member: peer for peer in peers.values()}, writer.leftovers)
        found: list[Measure] = []
        consistency: list[Consistency] = []
        topology: dict[str, Any] = {}
        for entry in get(access, first, "/collections")["collections"]:
            collection = str(entry["name"])
            if collection == PROBE:
                continue
            begun = datetime.now(UTC)
            shards = _shards(access, peers, first, collection)
            before = measure_collection(access, first, collection)
            with ThreadPoolExecutor(PARALLEL_SHARDS, thread_name_prefix="shard") as pool:
                list(pool.map(lambda shard: _take(access, writer, shard), shards))
            found += settled([before], [measure_collection(access, first, collection)])
            found.append(measure_indexes(access, first, collection))
            described = {
                "collection": get(access, first, path_of(collection)),
                "layout": layout(access, first, collection),
            }
            writer.add_json(
                f"{_file(collection)}/collection.json", f"collection {collection}", described
            )
            topology[collection] = [
                {"shard": s.number, "taken_from": s.peer.member, "key": s.key} for s in shards
            ]
            consistency.append(
                Consistency(
                    unit=f"collection {collection}",
                    point="each shard by itself",
                    begun=begun,
                    ended=datetime.now(UTC),
                )
            )
        aliases = get(access, first, "/aliases")["aliases"]
        writer.add_json("aliases.json", "aliases", aliases)
        found.append(measure_aliases(access, first))
        about = access.http.get(f"http://{first.url}/").json()
    return Taken(
        engine=Engine(name="Qdrant", version=str(about["version"])),
        topology={"peers": names, "collections": topology},
        consistency=tuple(consistency),
        fingerprint=tuple(found),
        not_covered=NOT_COVERED,
    )


def _peers(access: Access) -> tuple[dict[str, Endpoint], dict[str, str]]:
    """Peers by their ids, and the ids' names."""
    members = access.endpoints(STATEFULSET, access.settings.components.qdrant.members, PORT)
    answers = ask_members(members, lambda peer: get(access, peer, "/cluster"))
    if not answers.good:
        raise TemporaryError(f"no peer of Qdrant answers: {words(answers.bad)}", delay=15)
    by_name = {member.member: member for member in members}
    names = {str(said["peer_id"]): name for name, said in answers.good.items()}
    return {identity: by_name[name] for identity, name in names.items()}, names


def _shards(
    access: Access, peers: dict[str, Endpoint], first: Endpoint, collection: str
) -> list[Shard]:
    """For each shard a replica that is active and within reach; peers take turns."""
    by_shard: dict[int, list[dict[str, Any]]] = {}
    for replica in replicas(access, first, collection):
        by_shard.setdefault(int(replica["shard_id"]), []).append(replica)
    shards = []
    for number, copies in sorted(by_shard.items()):
        active = [c for c in copies if c["state"] == "Active" and str(c["peer_id"]) in peers]
        if not active:
            states = ", ".join(f"peer {c['peer_id']} {c['state']}" for c in copies)
            raise TemporaryError(
                f"{collection}, shard {number} has no active replica within reach: {states}",
                delay=20,
            )
        chosen = sorted(active, key=lambda c: str(c["peer_id"]))[number % len(active)]
        key = "" if chosen.get("shard_key") is None else str(chosen["shard_key"])
        shards.append(Shard(collection, number, peers[str(chosen["peer_id"])], key))
    return shards


def _take(access: Access, writer: SetWriter, shard: Shard) -> None:
    stall = access.settings.backup.stall_seconds
    with snapshot(access, shard, writer.leftovers, stall) as made:
        name = f"{_file(shard.collection)}/shard-{shard.number}.snapshot"
        unit = f"collection {shard.collection}"
        writer.add(name, unit, "Qdrant shard snapshot", Download(access, made, stall), made.size)


def _file(collection: str) -> str:
    """A collection's name as a folder's."""
    return quote(collection, safe="")


@contextmanager
def _explained() -> Iterator[None]:
    """What the client raises, as an error that may be tried again."""
    try:
        yield
    except (httpx.HTTPError, RuntimeError) as exc:
        raise TemporaryError(f"Qdrant: {exc}", delay=15) from exc
