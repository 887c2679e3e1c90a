"""Brings Qdrant back: collections as they were made, a snapshot into each shard, payload indexes, limits, aliases.

A shard goes to a peer that has it; in a proof there is one peer, and so one copy of each, whatever the settings say
(qdrant/qdrant lib/storage/src/content_manager/shard_distribution.rs).
https://qdrant.tech/documentation/snapshots/
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from archive.manifest import Manifest, Measure
from archive.reader import SetReader
from archive.spool import prepare_spool
from cluster.polling import polling
from components.access import Access, Endpoint
from components.base import Restore, Scratch
from components.qdrant.client import (
    PORT,
    STATEFULSET,
    Refused,
    call,
    copies_in,
    get,
    headers,
    path_of,
    replicas,
    words_of,
)
from components.qdrant.creation import (
    by_key,
    create,
    create_indexes,
    places,
    set_limits,
)
from components.qdrant.fingerprint import comparable, measure_everything
from components.qdrant.settling import wait_until_settled
from config.models import Settings
from errors import PermanentError, TemporaryError

FORM = "Qdrant shard snapshot"
DESCRIPTION = "/collection.json"
# Shards that were just made are `Initializing` until each peer has told the others.
CREATION_SECONDS, POLL_SECONDS = 60.0, 0.5


def scratch(_: Settings, manifest: Manifest, password: str) -> tuple[Scratch, ...]:
    """A cluster of one: only a cluster has shards of their own."""
    environ = {
        "QDRANT__SERVICE__HOST": "0.0.0.0",
        "QDRANT__SERVICE__API_KEY": password,
        "QDRANT__CLUSTER__ENABLED": "true",
        "QDRANT__STORAGE__STORAGE_PATH": "/scratch/storage",
        "QDRANT__STORAGE__SNAPSHOTS_PATH": "/scratch/snapshots",
        "QDRANT__STORAGE__TEMP_PATH": "/scratch/temporary",
        "QDRANT__TELEMETRY_DISABLED": "true",
    }
    command = ("/qdrant/qdrant", "--uri", "http://0.0.0.0:6335")
    return (
        Scratch("", STATEFULSET, "qdrant", command, PORT, environ, secrets={"qdrant-auth": {"api-key": password}}),
    )  # fmt: skip


def place(reader: SetReader, name: str, directory: Path) -> None:
    """Nothing: snapshots come over the network."""


def ask(access: Access, endpoint: Endpoint) -> str:
    """Version of a peer that is ready."""
    access.http.get(f"http://{endpoint.url}/readyz").raise_for_status()
    return f"Qdrant {access.http.get(f'http://{endpoint.url}/').json()['version']}"


def load(access: Access, at: Mapping[str, Endpoint], reader: SetReader) -> None:
    """Restore all collections, and the aliases.

    Raises:
        Damaged: an artefact is not what was stored.
        PermanentError: Qdrant refuses something; with its words.
        TemporaryError: it went away.
    """
    peer = next(iter(at.values()))
    with explained():
        peers = {str(get(access, peer, "/cluster")["peer_id"]): peer}
        for folder in folders(reader):
            restore_collection(access, peers, reader, folder)
        restore_aliases(access, peer, reader)


def measure(
    access: Access, at: Mapping[str, Endpoint], reader: SetReader
) -> Mapping[str, list[Measure]]:
    """What the collections hold that the peer lists, and its aliases.

    Raises:
        TemporaryError: the peer went away.
    """
    peer = next(iter(at.values()))
    with explained():
        found = measure_everything(access, peer)
    return {"": comparable(found, reader.manifest.fingerprint)}


RESTORE = Restore(scratch, place, ask, load, measure)


def folders(reader: SetReader) -> list[str]:
    """Where a backup has its collections."""
    names = reader.names("JSON")
    return [name.removesuffix(DESCRIPTION) for name in names if name.endswith(DESCRIPTION)]


def collection_in(reader: SetReader, folder: str) -> str:
    """Name of the collection in a folder, which has a part of a long one only."""
    return reader.unit(folder + DESCRIPTION).partition(" ")[2]


def restore_collection(
    access: Access, peers: Mapping[str, Endpoint], reader: SetReader, folder: str
) -> None:
    """Make a collection as it was, fill its shards, and wait until every replica has its shard's points.

    Args:
        access: the way in.
        peers: by their ids.
        reader: of the backup.
        folder: of the collection in it.
    """
    name, peer = collection_in(reader, folder), next(iter(peers.values()))
    about = reader.json(folder + DESCRIPTION)
    seconds = access.settings.backup.stall_seconds
    create(access, peer, name, about, seconds)
    there = _reachable(access, peers, name)
    holders = {int(r["shard_id"]): str(r["peer_id"]) for r in there}
    place_of = places(name, by_key(copies_in(about["layout"])), by_key(there))
    for shard in reader.names(FORM):
        if shard.startswith(f"{folder}/"):
            number = place_of[int(shard.rpartition("/shard-")[2].removesuffix(".snapshot"))]
            _upload(access, peers[holders[number]], reader, name, shard, number)
    create_indexes(access, peer, name, about, seconds)
    wait_until_settled(access, peers, name, seconds)
    set_limits(access, peer, name, about, seconds)


def restore_aliases(
    access: Access, peer: Endpoint, reader: SetReader, only: Collection[str] | None = None
) -> list[str]:
    """Make the aliases again; one that points to another collection by now is left as it is.

    Args:
        access: the way in.
        peer: through which one.
        reader: of the backup.
        only: those of some collections; all if left out.

    Returns:
        Those that were left, in words.
    """
    now = aliases_of(access, peer)
    actions, left = [], []
    for alias in reader.json("aliases.json"):
        name, collection = alias["alias_name"], alias["collection_name"]
        if only is not None and collection not in only:
            continue
        if now.get(name, collection) != collection:
            left.append(
                f"alias {name} still points to {now[name]}, in the backup it points to {collection}"
            )
            continue
        actions.append({"create_alias": {"alias_name": name, "collection_name": collection}})
    if actions:
        call(access, peer, "POST", "/collections/aliases", {"actions": actions})
    return left


def aliases_of(access: Access, peer: Endpoint) -> dict[str, str]:
    """Alias → its collection, as they are now."""
    found = get(access, peer, "/aliases")["aliases"]
    return {str(one["alias_name"]): str(one["collection_name"]) for one in found}


# ---------------------------------------------------------------------- inside
def _reachable(
    access: Access, peers: Mapping[str, Endpoint], collection: str
) -> list[dict[str, Any]]:
    """Active replicas on peers that answer: what a shard's snapshot may go to. New shards become active soon.

    Raises:
        TemporaryError: a shard has none.
    """
    peer, without = next(iter(peers.values())), set[int]()
    for _ in polling(CREATION_SECONDS, pause=POLL_SECONDS):
        copies = replicas(access, peer, collection)
        found = [c for c in copies if c["state"] == "Active" and str(c["peer_id"]) in peers]
        without = {int(c["shard_id"]) for c in copies} - {int(c["shard_id"]) for c in found}
        if not without:
            return found
    numbers = ", ".join(map(str, sorted(without)))
    raise TemporaryError(
        f"{collection}: shards {numbers} have no active replica on a peer that answers", delay=20
    )


def _upload(
    access: Access, peer: Endpoint, reader: SetReader, name: str, shard: str, number: int
) -> None:
    spool = access.settings.backup.spool
    with tempfile.TemporaryDirectory(dir=prepare_spool(spool)) as directory:
        # on the disk first: whether its bytes are sound is known at the end only
        file = reader.save(shard, Path(directory) / "shard.snapshot")
        where = f"{path_of(name)}/shards/{number}/snapshots/upload?wait=true&priority=snapshot"
        with file.open("rb") as body:
            answer = access.http.post(
                f"http://{peer.url}{where}&checksum={reader.sha256(shard)}",
                files={"snapshot": (file.name, body)},
                headers=headers(access),
                timeout=access.settings.backup.stall_seconds,
            )
    if answer.status_code >= 400:
        what = f"upload of {name}, shard {number}, to {peer.member}"
        raise Refused(answer.status_code, what, words_of(answer))


@contextmanager
def explained() -> Iterator[None]:
    """What the client raises, in the project's own terms."""
    try:
        yield
    except httpx.HTTPError as exc:
        raise TemporaryError(f"Qdrant: {exc}", delay=15) from exc
    except Refused as exc:
        # the server's own words may quote a payload
        raise PermanentError(f"Qdrant, {exc.what}: HTTP {exc.status}", said=exc.words) from exc
    except RuntimeError as exc:
        raise PermanentError(f"Qdrant, {exc}") from exc
