"""One peer of the cluster: what it knows of collections, where shards live, how writes and reads find them."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx

from deployments.sandbox.doubles.qdrant import operations
from deployments.sandbox.doubles.qdrant.errors import Refused, missing_collection, unavailable
from deployments.sandbox.doubles.qdrant.points import config, shard_of
from deployments.sandbox.doubles.qdrant.shards import Shard
from deployments.sandbox.paths import write_atomic

ACTIVE, DEAD = "Active", "Dead"
P2P_PORT = 6335
NO_CONSENSUS = "Waiting for consensus operation commit failed. Timeout set at: 10 seconds"
BEAT_SECONDS = 0.5
PEER_TIMEOUT_SECONDS = 2.0
T = TypeVar("T")


@dataclass(frozen=True)
class Other:
    """Another peer, or this one.

    Attributes:
        name: of its pod.
        address: where it listens.
    """

    name: str
    address: str

    @property
    def identity(self) -> int:
        """Its peer id: 53 bits, since JSON readers lose more."""
        return (
            int.from_bytes(hashlib.blake2b(self.name.encode(), digest_size=8).digest(), "big") >> 11
        )

    @property
    def uri(self) -> str:
        """How the cluster calls it."""
        return f"http://{self.address}:{P2P_PORT}/"


class Peer:
    """This peer.

    Args:
        name: one of `peers`.
        peers: name → address of all.
        data: directory of its own.
    """

    def __init__(self, name: str, peers: dict[str, str], data: Path) -> None:
        self.peers = {n: Other(n, address) for n, address in peers.items()}
        self.me = self.peers[name]
        self.data = data
        self.lock = threading.RLock()
        self.operations = 0
        self.failures: dict[str, dict[str, Any]] = {}
        self.http = httpx.Client(timeout=PEER_TIMEOUT_SECONDS)
        self._shards: dict[tuple[str, int], Shard] = {}
        file = data / "meta.json"
        empty = {"version": 0, "collections": {}, "aliases": {}}
        self.meta: dict[str, Any] = json.loads(file.read_text()) if file.exists() else empty
        for other in self.others():
            found = self._try(other, lambda o: self.http.get(f"{o.uri}meta").json())
            if found and found["version"] > self.meta["version"]:
                self._adopt(found)
        self._open_shards()

    # ------------------------------------------------------------------ cluster
    def others(self) -> list[Other]:
        """The other peers."""
        return [other for other in self.peers.values() if other != self.me]

    def beat(self) -> None:
        """For ever: see who answers, take newer metadata, and bring own dead replicas back."""
        while True:
            for other in self.others():
                found = self._try(other, lambda o: self.http.get(f"{o.uri}meta").json())
                with self.lock:
                    if found and found["version"] > self.meta["version"]:
                        self._adopt(found)
            self._recover()
            time.sleep(BEAT_SECONDS)

    def alive(self) -> list[Other]:
        """Peers that answered last time."""
        return [p for p in self.peers.values() if p.uri not in self.failures]

    def majority(self) -> bool:
        """Whether this peer sees enough others to change anything."""
        return len(self.alive()) > len(self.peers) // 2

    def change(self, edit: Callable[[dict[str, Any]], None]) -> None:
        """Change the metadata everywhere; refused without a majority, as Raft would."""
        with self.lock:
            if not self.majority():
                raise Refused(500, f"Service internal error: {NO_CONSENSUS}")
            meta = json.loads(json.dumps(self.meta))
            edit(meta)
            meta["version"] += 1
            self._adopt(meta)
        for other in self.others():
            self._try(other, lambda o: self.http.put(f"{o.uri}meta", json=meta))

    def take(self, meta: dict[str, Any]) -> None:
        """Take what another peer has changed."""
        with self.lock:
            if meta["version"] > self.meta["version"]:
                self._adopt(meta)

    # ------------------------------------------------------------------ collections
    def create(self, name: str, spec: dict[str, Any]) -> None:
        """Make a collection; its shards go round the peers."""
        if name in self.meta["collections"]:
            raise Refused(409, f"Wrong input: Collection `{name}` already exists!")
        config(spec.get("vectors") or {})
        names = sorted(self.peers)
        count = int(spec.get("shard_number") or len(names))
        copies = min(int(spec.get("replication_factor") or 1), len(names))
        shards = {
            str(n): {names[(n + c) % len(names)]: ACTIVE for c in range(copies)}
            for n in range(count)
        }
        made = {"spec": spec | {"shard_number": count}, "shards": shards, "indexes": {}}
        self.change(lambda meta: meta["collections"].update({name: made}))

    def collection(self, name: str) -> dict[str, Any]:
        """A collection by its name or an alias."""
        name = self.meta["aliases"].get(name, name)
        if name not in self.meta["collections"]:
            raise missing_collection(name)
        found: dict[str, Any] = self.meta["collections"][name]
        return found | {"name": name}

    def local(self, name: str, shard: int) -> Shard:
        """A replica that is here."""
        found = self._shards.get((name, shard))
        if found is None:
            raise Refused(404, f"Not found: shard {shard} not found")
        return found

    # ------------------------------------------------------------------ writes and reads
    def write(self, name: str, per_shard: dict[int, dict[str, Any]]) -> int:
        """Send each shard's operation to all its replicas that are not dead.

        Returns:
            Number of the operation.
        """
        found = self.collection(name)
        for shard, operation in per_shard.items():
            replicas = found["shards"][str(shard)]
            good, lost = 0, []
            for owner in [owner for owner, state in replicas.items() if state == ACTIVE]:
                if owner == self.me.name:
                    self.apply(found["name"], shard, operation)
                    good += 1
                elif self._send(self.peers[owner], found["name"], shard, operation):
                    good += 1
                else:
                    lost.append(owner)
            if not good:
                failed = "\\n".join(unavailable(self.peers[owner].uri) for owner in lost)
                raise Refused(500, f"Service internal error: {failed or 'no active replica'}")
            if lost and self.majority():
                self._mark(found["name"], shard, lost, DEAD)
        with self.lock:
            self.operations += 1
            return self.operations

    def apply(self, name: str, shard: int, operation: dict[str, Any]) -> None:
        """Apply an operation to the replica that is here."""
        operations.apply(self.local(name, shard), operation)

    def read(self, name: str, question: dict[str, Any]) -> list[Any]:
        """Ask one replica of each shard.

        Raises:
            Refused: 500, a shard has no replica that answers.
        """
        found = self.collection(name)
        answers = []
        for shard, replicas in sorted(found["shards"].items(), key=lambda item: int(item[0])):
            owners = [owner for owner, state in replicas.items() if state == ACTIVE]
            if self.me.name in owners:
                answers.append(operations.ask(self.local(found["name"], int(shard)), question))
                continue
            failed = []
            for owner in owners:
                url = f"{self.peers[owner].uri}ask/{found['name']}/{shard}"
                said = self._try(self.peers[owner], partial(self._post, url, question))
                if said is not None and said.status_code == 200:
                    answers.append(said.json())
                    break
                failed.append(f"  Service internal error: {unavailable(self.peers[owner].uri)}")
            else:
                count = len(failed)
                lines = "\n".join([f"{count} of {count} read operations failed:", *failed])
                raise Refused(500, f"Service internal error: {lines}")
        return answers

    def split(self, name: str, ids: list[int | str]) -> dict[int, list[int | str]]:
        """Point ids by shard."""
        count = int(self.collection(name)["spec"]["shard_number"])
        parts: dict[int, list[int | str]] = {}
        for point in ids:
            parts.setdefault(shard_of(point, count), []).append(point)
        return parts

    def restored(self, name: str, shard: int) -> None:
        """After an upload: the other replicas take over what is here now."""
        others = [o for o in self.collection(name)["shards"][str(shard)] if o != self.me.name]
        if others and self.majority():
            self._mark(name, shard, others, DEAD)

    # ------------------------------------------------------------------ inside
    def _send(self, other: Other, name: str, shard: int, operation: dict[str, Any]) -> bool:
        url = f"{other.uri}apply/{name}/{shard}"
        answer = self._try(other, partial(self._post, url, operation))
        if answer is None:
            return False
        if answer.status_code >= 400:
            raise Refused(answer.status_code, answer.json()["error"])
        return True

    def _mark(self, name: str, shard: int, owners: list[str], state: str) -> None:
        def edit(meta: dict[str, Any]) -> None:
            replicas = meta["collections"].get(name, {}).get("shards", {}).get(str(shard), {})
            replicas.update({owner: state for owner in owners if owner in replicas})

        self.change(edit)

    def _recover(self) -> None:
        """Copy own replicas that are dead from one that is not."""
        for name, found in list(self.meta["collections"].items()):
            for shard, replicas in found["shards"].items():
                sources = [self.peers[o] for o, state in replicas.items() if state == ACTIVE]
                if replicas.get(self.me.name) != DEAD or not sources:
                    continue
                with tempfile.TemporaryDirectory(dir=self.data) as scratch:
                    archive = Path(scratch) / "archive"
                    url = f"{sources[0].uri}archive/{name}/{shard}"
                    said = self._try(sources[0], partial(self._fetch, url))
                    if said is None or said.status_code != 200:
                        continue
                    archive.write_bytes(said.content)
                    try:
                        self.local(name, int(shard)).restore(archive)
                        self._mark(name, int(shard), [self.me.name], ACTIVE)
                    except Refused:
                        continue

    def _post(self, url: str, body: dict[str, Any], _: Other) -> httpx.Response:
        return self.http.post(url, json=body)

    def _fetch(self, url: str, _: Other) -> httpx.Response:
        return self.http.get(url, timeout=60)

    def _try(self, other: Other, call: Callable[[Other], T]) -> T | None:
        """Call a peer; None, and a mark in `message_send_failures`, if it is away."""
        try:
            answer = call(other)
        except (httpx.HTTPError, ValueError):
            known = self.failures.get(other.uri, {"count": 0})
            self.failures[other.uri] = {
                "count": known["count"] + 1,
                "latest_error": "Error in closure supplied to transport channel pool: "
                + unavailable(other.uri).removeprefix("Tonic status error: "),
                "latest_error_timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            }
            return None
        self.failures.pop(other.uri, None)
        return answer

    def _adopt(self, meta: dict[str, Any]) -> None:
        self.meta = meta
        write_atomic(self.data / "meta.json", json.dumps(meta))
        self._open_shards()

    def _open_shards(self) -> None:
        wanted = {
            (name, int(shard)): found["spec"]["vectors"]
            for name, found in self.meta["collections"].items()
            for shard, replicas in found["shards"].items()
            if self.me.name in replicas
        }
        for name, shard in set(self._shards) - set(wanted):
            self._shards.pop((name, shard)).close()
            shutil.rmtree(self.data / "collections" / name / str(shard), ignore_errors=True)
        for (name, shard), vectors in wanted.items():
            if (name, shard) not in self._shards:
                directory = self.data / "collections" / name / str(shard)
                self._shards[name, shard] = Shard(directory, vectors)
