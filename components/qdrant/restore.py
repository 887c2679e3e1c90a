"""Brings Qdrant back: collections as they were made, a snapshot into each shard, payload indexes, aliases.

A shard goes to a peer that has it; in a proof there is one peer and one copy.
https://qdrant.tech/documentation/snapshots/
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx

from archive.manifest import Manifest, Measure
from archive.reader import SetReader
from components.access import Access, Endpoint
from components.base import Restore, Scratch
from components.qdrant.client import PORT, STATEFULSET, call, get, headers, path_of
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
    with _explained():
        for name in reader.names("JSON"):
            if name.endswith(DESCRIPTION):
                _collection(access, peer, reader, name.removesuffix(DESCRIPTION))
        aliases = [
            {"create_alias": {key: alias[key] for key in ("alias_name", "collection_name")}}
            for alias in reader.json("aliases.json")
        ]
        if aliases:
            call(access, peer, "POST", "/collections/aliases", {"actions": aliases})


def measure(
    access: Access, at: Mapping[str, Endpoint], reader: SetReader
) -> Mapping[str, list[Measure]]:
    """What the collections hold that the peer lists, and its aliases.

    Raises:
        TemporaryError: the peer went away.
    """
    peer = next(iter(at.values()))
    found: list[Measure] = []
    with _explained():
        for entry in get(access, peer, "/collections")["collections"]:
            name = str(entry["name"])
            found += [measure_collection(access, peer, name), measure_indexes(access, peer, name)]
        found.append(measure_aliases(access, peer))
    return {"": found}


RESTORE = Restore(scratch, place, ask, load, measure)


# ---------------------------------------------------------------------- inside
def _collection(access: Access, peer: Endpoint, reader: SetReader, folder: str) -> None:
    name = unquote(folder)
    described: dict[str, Any] = reader.json(folder + DESCRIPTION)["collection"]
    seconds = access.settings.backup.stall_seconds
    call(access, peer, "PUT", path_of(name), _creation(described["config"]), timeout=seconds)
    keys = {str(shard["key"]) for shard in reader.manifest.topology["collections"][name]} - {""}
    for key in sorted(keys):
        call(access, peer, "PUT", f"{path_of(name)}/shards", {"shard_key": key}, timeout=seconds)
    for shard in reader.names(FORM):
        if shard.startswith(f"{folder}/"):
            _upload(access, peer, reader, name, shard)
    for field, schema in described["payload_schema"].items():
        body = {"field_name": field, "field_schema": schema.get("params") or schema["data_type"]}
        call(access, peer, "PUT", f"{path_of(name)}/index?wait=true", body, timeout=seconds)


def _creation(config: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a collection like one that was described; one copy of each shard."""
    wanted = {
        **config["params"],
        "replication_factor": 1,
        "write_consistency_factor": 1,
        **{part: config.get(part) for part in PARTS},
        "optimizers_config": config.get("optimizer_config"),
    }
    return {key: value for key, value in wanted.items() if value is not None}


def _upload(access: Access, peer: Endpoint, reader: SetReader, name: str, shard: str) -> None:
    number = shard.rpartition("/shard-")[2].removesuffix(".snapshot")
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
def _explained() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as exc:
        raise TemporaryError(f"Qdrant: {exc}", delay=15) from exc
    except RuntimeError as exc:
        raise PermanentError(f"Qdrant: {exc}") from exc
