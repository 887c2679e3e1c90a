"""Restores Qdrant: creates collections, uploads a snapshot into each shard, then sets indexes, limits and aliases.

A snapshot is uploaded to a peer that has the shard. A scratch engine is one peer with one replica of each shard,
whatever the settings say (qdrant/qdrant lib/storage/src/content_manager/shard_distribution.rs).
https://qdrant.tech/documentation/snapshots/
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from archive.backup.manifest import Manifest, Measure
from archive.backup.reader import SetReader
from archive.streams.spool import prepare_spool
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
from components.qdrant.collections.creation import (
    by_key,
    create,
    create_indexes,
    places,
    set_limits,
)
from components.qdrant.collections.settling import wait_until_settled
from components.qdrant.fingerprint import comparable, measure_everything
from config.models import Settings
from errors import PermanentError, TemporaryError

FORM = "Qdrant shard snapshot"
DESCRIPTION = "/collection.json"
# New shards are `Initializing` until all peers have agreed on them.
CREATION_SECONDS, POLL_SECONDS = 60.0, 0.5


def scratch(_: Settings, manifest: Manifest, password: str) -> tuple[Scratch, ...]:
    """A cluster of one peer: without a cluster shards cannot be restored one by one."""
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
    """Nothing to place: snapshots are uploaded over the network."""


def ask(access: Access, endpoint: Endpoint) -> str:
    """The peer's version, once it is ready."""
    access.http.get(f"http://{endpoint.url}/readyz").raise_for_status()
    return f"Qdrant {access.http.get(f'http://{endpoint.url}/').json()['version']}"


def load(access: Access, at: Mapping[str, Endpoint], reader: SetReader) -> None:
    """Restore all collections, and the aliases.

    Raises:
        Damaged: an artefact differs from what was stored.
        PermanentError: Qdrant refuses something; has its message.
        TemporaryError: Qdrant went away.
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
    """Measure all collections of the peer, and its aliases.

    Raises:
        TemporaryError: the peer went away.
    """
    peer = next(iter(at.values()))
    with explained():
        measures = measure_everything(access, peer)
    return {"": comparable(measures, reader.manifest.fingerprint)}


RESTORE = Restore(scratch, place, ask, load, measure)


def folders(reader: SetReader) -> list[str]:
    """The folders of a backup's collections."""
    names = reader.names("JSON")
    return [name.removesuffix(DESCRIPTION) for name in names if name.endswith(DESCRIPTION)]


def collection_in(reader: SetReader, folder: str) -> str:
    """Name of the collection in a folder. The folder's own name may be shortened."""
    return reader.unit(folder + DESCRIPTION).partition(" ")[2]


def restore_collection(
    access: Access, peers: Mapping[str, Endpoint], reader: SetReader, folder: str
) -> None:
    """Create a collection, fill its shards, and wait until every replica has the points of its shard.

    Args:
        access: addresses and credentials.
        peers: id → peer.
        reader: the backup.
        folder: the collection's folder in it.
    """
    name, peer = collection_in(reader, folder), next(iter(peers.values()))
    about = reader.json(folder + DESCRIPTION)
    seconds = access.settings.backup.stall_seconds
    create(access, peer, name, about, seconds)
    live_copies = _reachable(access, peers, name)
    holders = {int(r["shard_id"]): str(r["peer_id"]) for r in live_copies}
    place_of = places(name, by_key(copies_in(about["layout"])), by_key(live_copies))
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
    """Create the aliases. An alias that now points to another collection is not changed.

    Args:
        access: addresses and credentials.
        peer: the peer to ask.
        reader: the backup.
        only: restore only aliases of these collections; all if left out.

    Returns:
        A remark for each alias that was not changed.
    """
    live_aliases = aliases_of(access, peer)
    actions, remarks = [], []
    for alias in reader.json("aliases.json"):
        name, collection = alias["alias_name"], alias["collection_name"]
        if only is not None and collection not in only:
            continue
        if live_aliases.get(name, collection) != collection:
            remarks.append(
                f"alias {name} still points to {live_aliases[name]}, in the backup it points to {collection}"
            )
            continue
        actions.append({"create_alias": {"alias_name": name, "collection_name": collection}})
    if actions:
        call(access, peer, "POST", "/collections/aliases", {"actions": actions})
    return remarks


def aliases_of(access: Access, peer: Endpoint) -> dict[str, str]:
    """Alias → its collection now."""
    aliases = get(access, peer, "/aliases")["aliases"]
    return {str(alias["alias_name"]): str(alias["collection_name"]) for alias in aliases}


# ---------------------------------------------------------------------- inside
def _reachable(
    access: Access, peers: Mapping[str, Endpoint], collection: str
) -> list[dict[str, Any]]:
    """Active replicas on peers that answer. Waits, because new shards become active soon.

    Raises:
        TemporaryError: a shard has no such replica.
    """
    peer, missing = next(iter(peers.values())), set[int]()
    for _ in polling(CREATION_SECONDS, pause=POLL_SECONDS):
        copies = replicas(access, peer, collection)
        active = [c for c in copies if c["state"] == "Active" and str(c["peer_id"]) in peers]
        missing = {int(c["shard_id"]) for c in copies} - {int(c["shard_id"]) for c in active}
        if not missing:
            return active
    numbers = ", ".join(map(str, sorted(missing)))
    raise TemporaryError(
        f"{collection}: shards {numbers} have no active replica on a peer that answers", delay=20
    )


def _upload(
    access: Access, peer: Endpoint, reader: SetReader, name: str, shard: str, number: int
) -> None:
    spool = access.settings.backup.spool
    with tempfile.TemporaryDirectory(dir=prepare_spool(spool)) as directory:
        # saved to disk first, because only then all its bytes have been checked
        file = reader.save(shard, Path(directory) / "shard.snapshot")
        path = f"{path_of(name)}/shards/{number}/snapshots/upload?wait=true&priority=snapshot"
        with file.open("rb") as body:
            answer = access.http.post(
                f"http://{peer.url}{path}&checksum={reader.sha256(shard)}",
                files={"snapshot": (file.name, body)},
                headers=headers(access),
                timeout=access.settings.backup.stall_seconds,
            )
    if answer.status_code >= 400:
        request = f"upload of {name}, shard {number}, to {peer.member}"
        raise Refused(answer.status_code, request, words_of(answer))


@contextmanager
def explained() -> Iterator[None]:
    """Turn exceptions of the client into the project's errors."""
    try:
        yield
    except httpx.HTTPError as exc:
        raise TemporaryError(f"Qdrant: {exc}", delay=15) from exc
    except Refused as exc:
        # the server's own words may quote a payload
        raise PermanentError(f"Qdrant, {exc.what}: HTTP {exc.status}", said=exc.words) from exc
    except RuntimeError as exc:
        raise PermanentError(f"Qdrant, {exc}") from exc
