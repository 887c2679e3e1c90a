"""Brings Qdrant back: collections as they were made, a snapshot into each shard, payload indexes, aliases.

A shard goes to a peer that has it; in a proof there is one peer and one copy.
https://qdrant.tech/documentation/snapshots/
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx

from archive.manifest import Manifest, Measure
from archive.reader import SetReader
from components.access import Access, Endpoint
from components.base import Restore, Scratch
from components.qdrant.client import (
    PORT,
    STATEFULSET,
    call,
    copies_in,
    get,
    headers,
    path_of,
    replicas,
)
from components.qdrant.fingerprint import measure_aliases, measure_collection, measure_indexes
from config.models import Settings
from errors import PermanentError, TemporaryError

FORM = "Qdrant shard snapshot"
DESCRIPTION = "/collection.json"
# Of a collection's configuration: what its maker may say, beside `params`.
PARTS = ("hnsw_config", "wal_config", "quantization_config", "strict_mode_config")


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
        for name in reader.names("JSON"):
            if name.endswith(DESCRIPTION):
                restore_collection(access, peers, reader, name.removesuffix(DESCRIPTION), copies=1)
        restore_aliases(access, peer, reader)


def measure(
    access: Access, at: Mapping[str, Endpoint], reader: SetReader
) -> Mapping[str, list[Measure]]:
    """What the collections hold that the peer lists, and its aliases.

    Raises:
        TemporaryError: the peer went away.
    """
    peer = next(iter(at.values()))
    found: list[Measure] = []
    with explained():
        for entry in get(access, peer, "/collections")["collections"]:
            name = str(entry["name"])
            found += [measure_collection(access, peer, name), measure_indexes(access, peer, name)]
        found.append(measure_aliases(access, peer))
    return {"": found}


RESTORE = Restore(scratch, place, ask, load, measure)


def restore_collection(
    access: Access,
    peers: Mapping[str, Endpoint],
    reader: SetReader,
    folder: str,
    copies: int | None,
) -> None:
    """Make a collection as it was, and fill its shards.

    Args:
        access: the way in.
        peers: by their ids.
        reader: of the set.
        folder: of the collection in it.
        copies: of each shard; None for as many as it had.
    """
    name, peer = unquote(folder), next(iter(peers.values()))
    about = reader.json(folder + DESCRIPTION)
    described: dict[str, Any] = about["collection"]
    seconds = access.settings.backup.stall_seconds
    wanted = _creation(described["config"], copies)
    call(access, peer, "PUT", path_of(name), wanted, timeout=seconds)
    then = by_key(copies_in(about["layout"]))
    for key, numbers in then.items():
        if key is not None:
            body = {"shard_key": key, "shards_number": len(numbers)}
            call(access, peer, "PUT", f"{path_of(name)}/shards", body, timeout=seconds)
    there = replicas(access, peer, name)
    holders = {int(r["shard_id"]): str(r["peer_id"]) for r in there}
    places = _places(name, then, by_key(there))
    for shard in reader.names(FORM):
        if shard.startswith(f"{folder}/"):
            number = places[int(shard.rpartition("/shard-")[2].removesuffix(".snapshot"))]
            _upload(access, peers[holders[number]], reader, name, shard, number)
    for field, schema in described["payload_schema"].items():
        body = {"field_name": field, "field_schema": schema.get("params") or schema["data_type"]}
        call(access, peer, "PUT", f"{path_of(name)}/index?wait=true", body, timeout=seconds)


def restore_aliases(
    access: Access, peer: Endpoint, reader: SetReader, only: Collection[str] | None = None
) -> None:
    """Make the aliases again; `only` those of some collections."""
    aliases = [
        {"create_alias": {key: alias[key] for key in ("alias_name", "collection_name")}}
        for alias in reader.json("aliases.json")
        if only is None or alias["collection_name"] in only
    ]
    if aliases:
        call(access, peer, "POST", "/collections/aliases", {"actions": aliases})


def by_key(copies: Iterable[Mapping[str, Any]]) -> dict[Any, list[int]]:
    """Numbers of the shards of each key, in order; all are of None where nobody named keys.

    Args:
        copies: of shards, as Qdrant lists them: a key is a text or a number, and 1 is another one than "1".
    """
    keys = {int(copy["shard_id"]): copy.get("shard_key") for copy in copies}
    found: dict[Any, list[int]] = {}
    for number, key in sorted(keys.items()):
        found.setdefault(key, []).append(number)
    return found


# ---------------------------------------------------------------------- inside
def _places(
    name: str, then: Mapping[Any, list[int]], now: Mapping[Any, list[int]]
) -> dict[int, int]:
    """Which shard takes which one's place: Qdrant numbers those of a new key on, whatever the old ones were."""
    if {key: len(numbers) for key, numbers in then.items()} != {
        key: len(numbers) for key, numbers in now.items()
    }:
        raise RuntimeError(f"{name} was made with shards {dict(now)} instead of {dict(then)}")
    return {
        old: new
        for key, numbers in then.items()
        for old, new in zip(numbers, now[key], strict=True)
    }


def _creation(config: Mapping[str, Any], copies: int | None) -> dict[str, Any]:
    """What makes a collection like one that was described."""
    few = {"replication_factor": copies, "write_consistency_factor": copies} if copies else {}
    wanted = {
        **config["params"],
        **few,
        **{part: config.get(part) for part in PARTS},
        "optimizers_config": config.get("optimizer_config"),
    }
    return {key: value for key, value in wanted.items() if value is not None}


def _upload(
    access: Access, peer: Endpoint, reader: SetReader, name: str, shard: str, number: int
) -> None:
    spool = access.settings.backup.spool
    spool.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=spool) as directory:
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
        raise RuntimeError(
            f"{name}, shard {number}: HTTP {answer.status_code}: {answer.text[:300]}"
        )


@contextmanager
def explained() -> Iterator[None]:
    """What the client raises, in the project's own terms."""
    try:
        yield
    except httpx.HTTPError as exc:
        raise TemporaryError(f"Qdrant: {exc}", delay=15) from exc
    except RuntimeError as exc:
        # up to its status these are our own words; the server's may quote a payload
        what, status, words = str(exc).partition(": HTTP ")
        code, _, words = words.partition(":")
        raise PermanentError(f"Qdrant, {what}{status}{code}", said=words.strip()) from exc
