"""One peer of the cluster: its collections and its shards.

Each creation of a collection has a unique id, which names the directories of its shards. So a peer that was down while
a collection was deleted and created again does not bring back the old points.
"""

from __future__ import annotations

import json
import shutil
import threading
import traceback
from pathlib import Path
from typing import Any
from uuid import uuid4

from sandbox.doubles.qdrant.errors import (
    Refused,
    malformed,
    missing_collection,
    missing_shard,
    understanding,
)
from sandbox.doubles.qdrant.keys import CUSTOM, same
from sandbox.doubles.qdrant.limits import Rates
from sandbox.doubles.qdrant.peers.consensus import Acceptor, Consensus, Edit, State
from sandbox.doubles.qdrant.peers.network import Network, Other
from sandbox.doubles.qdrant.points import config
from sandbox.doubles.qdrant.shards import Shard
from sandbox.machine.paths import write_atomic

ACTIVE, DEAD = "Active", "Dead"
SHARDS_AT_MOST = 1000  # each needs 64 MB of address space for its log


class Peer:
    """This peer.

    Args:
        name: one of `peers`.
        peers: name → address of all.
        data: its directory.

    Attributes:
        meta: the newest accepted state of the cluster that it knows; replaced, never changed in place.
        network: access to the other peers.
        lost: shards that were missing on this peer's disk at its start.
        rates: rate limits of reads.
    """

    def __init__(self, name: str, peers: dict[str, str], data: Path) -> None:
        self.data = data
        self.network = Network(name, peers)
        self.me = self.network.me
        self._lock = threading.RLock()
        self._shards: dict[tuple[str, int], Shard] = {}
        self.lost: set[tuple[str, int]] = set()
        self.rates = Rates()
        self._started = False
        self.meta = self._kept()
        self.look_around()
        self._open_shards()
        self._started = True
        self.acceptor = Acceptor(data / "consensus.json", self.meta)
        self.consensus = Consensus(self.network, self.acceptor, self.take)

    # ------------------------------------------------------------------ the cluster's state
    def change(self, edit: Edit) -> None:
        """Change the cluster's state; refused without a majority."""
        self.consensus.change(edit)

    def take(self, meta: State) -> None:
        """Set an accepted state, unless a newer one is known."""
        with self._lock:
            if meta["version"] > self.meta["version"]:
                self.meta = meta
                write_atomic(self.data / "meta.json", json.dumps(meta))
                self._open_shards()

    def look_around(self) -> None:
        """Check which peers answer, and update the state."""
        for other in self.network.others():
            self.catch_up(other)

    def catch_up(self, other: Other, version: int | None = None) -> None:
        """Update the state from another peer, if that has a newer one or at least the given version."""
        if version is not None and version <= self.meta["version"]:
            return
        said = self.network.call(other, "GET", "meta")
        if said is not None and said.status_code == 200:
            self.take(said.json())

    # ------------------------------------------------------------------ collections
    def create(self, name: str, spec: dict[str, Any]) -> None:
        """Create a collection. Its shards are distributed round-robin."""
        names = sorted(self.network.peers)
        with understanding():
            config(spec.get("vectors") or {})
            custom = spec.get("sharding_method") == CUSTOM
            count = int(spec.get("shard_number") or (1 if custom else len(names)))
            copies = min(int(spec.get("replication_factor") or 1), len(names))
        if not 0 < count <= SHARDS_AT_MOST or copies < 1:
            raise malformed(f"shard_number {count}, replication_factor {copies}: out of range")
        shards = {str(n): _spread(names, n, copies) for n in range(0 if custom else count)}
        made = {
            "uid": uuid4().hex,
            "spec": spec | {"shard_number": count},
            "shards": shards,
            "keys": {},
            "indexes": {},
        }

        def edit(meta: State) -> None:
            if name in meta["collections"] or name in meta["aliases"]:
                raise Refused(409, f"Wrong input: Collection `{name}` already exists!")
            meta["collections"][name] = made

        self.change(edit)

    def add_key(self, name: str, key: Any, count: int, copies: int) -> None:
        """Create the shards of a shard key."""
        names = sorted(self.network.peers)

        def edit(meta: State) -> None:
            found = meta["collections"].get(name)
            if found is None:
                raise missing_collection(name)
            if found["spec"].get("sharding_method") != CUSTOM:
                raise Refused(400, "Bad request: Shard Key creation needs custom sharding")
            if any(same(key, there) for there in found["keys"].values()):
                raise Refused(400, f"Bad request: Shard key {key} already exists")
            # numbers continue after the highest; they start at 1 in an empty collection
            highest = max((int(shard) for shard in found["shards"]), default=0)
            for number in range(highest + 1, highest + 1 + count):
                found["shards"][str(number)] = _spread(names, number, copies)
                found["keys"][str(number)] = key

        self.change(edit)

    def alter(self, name: str, change: dict[str, Any]) -> None:
        """Change the settings of a collection."""

        def edit(meta: State) -> None:
            found = meta["collections"].get(name)
            if found is None:
                raise missing_collection(name)
            spec = found["spec"]
            for part, value in change.items():
                merged = isinstance(spec.get(part), dict) and isinstance(value, dict)
                spec[part] = {**spec[part], **value} if merged else value

        self.change(edit)

    def drop(self, name: str) -> bool:
        """Remove a collection and its aliases. Returns whether it existed."""
        there = False

        def edit(meta: State) -> None:
            nonlocal there
            there = meta["collections"].pop(name, None) is not None
            meta["aliases"] = {a: c for a, c in meta["aliases"].items() if c != name}

        self.change(edit)
        return there

    def collection(self, name: str) -> dict[str, Any]:
        """A collection by its name or an alias, with its `name`."""
        meta = self.meta
        name = meta["aliases"].get(name, name)
        if name not in meta["collections"]:
            raise missing_collection(name)
        found: dict[str, Any] = meta["collections"][name]
        return found | {"name": name}

    def local(self, uid: str, shard: int) -> Shard:
        """A replica on this peer."""
        found = self._shards.get((uid, shard))
        if found is None:
            raise missing_shard(shard)
        return found

    def flush(self) -> None:
        """Flush all shards."""
        for shard in list(self._shards.values()):
            shard.flush()

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            for shard in self._shards.values():
                shard.close()

    # ------------------------------------------------------------------ inside
    def _kept(self) -> State:
        file = self.data / "meta.json"
        if not file.exists():
            return {"version": 0, "collections": {}, "aliases": {}}
        meta: State = json.loads(file.read_text(encoding="utf-8"))
        for name, found in meta["collections"].items():
            found.setdefault("uid", name)  # older files have no ids
        return meta

    def _open_shards(self) -> None:
        with self._lock:
            collections = self.meta["collections"].values()
            wanted = {
                (str(found["uid"]), int(shard)): found["spec"]["vectors"]
                for found in collections
                for shard, replicas in found["shards"].items()
                if self.me.name in replicas
            }
            for key in set(self._shards) - set(wanted):
                self._shards.pop(key).close()
            if self.meta["version"]:  # a peer without a state removes nothing
                self._forget({str(found["uid"]) for found in collections})
            for (uid, shard), vectors in wanted.items():
                if (uid, shard) not in self._shards:
                    directory = self.data / "collections" / uid / str(shard)
                    if not self._started and not directory.exists():
                        self.lost.add((uid, shard))
                    try:
                        self._shards[uid, shard] = Shard(directory, vectors)
                    except Exception:
                        # a broken shard must not stop the others or the cluster's state
                        traceback.print_exc()

    def _forget(self, uids: set[str]) -> None:
        """Remove files of deleted collections, also of those deleted while this peer was down."""
        for kind in ("collections", "snapshots"):
            parent = self.data / kind
            for directory in parent.iterdir() if parent.is_dir() else ():
                if directory.name not in uids and directory.name != "full":
                    shutil.rmtree(directory, ignore_errors=True)


def _spread(names: list[str], number: int, copies: int) -> dict[str, str]:
    """The peers of a shard's replicas, round-robin."""
    return {names[(number + c) % len(names)]: ACTIVE for c in range(min(copies, len(names)))}


def primary(replicas: dict[str, str]) -> str | None:
    """The primary, which orders writes: the first active replica."""
    return next((owner for owner, state in replicas.items() if state == ACTIVE), None)


def replicas_of(meta: State, uid: str, shard: int) -> dict[str, str]:
    """Owners of a shard and their states, in a state of the cluster."""
    for found in meta["collections"].values():
        if found["uid"] == uid:
            replicas: dict[str, str] = found["shards"].get(str(shard), {})
            if replicas:
                return replicas
    raise missing_shard(shard)
