"""Writes: one replica of each shard, the primary, orders them and passes them to the others.

The primary is the first active replica in the cluster's state. A replica that it cannot reach is marked `Dead` before
the write is acknowledged, so every active replica has all acknowledged writes. A replica refuses writes from a peer
that is not its primary; so a replaced primary learns that it was replaced.

To recover a dead replica, the primary creates an archive under its lock. From then on the replica also gets all writes,
and queues them until the archive is in place (`_recover`).
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from sandbox.doubles.qdrant.errors import NoConsensus, Refused, Stale, unavailable
from sandbox.doubles.qdrant.peer import ACTIVE, DEAD, Peer, primary, replicas_of
from sandbox.doubles.qdrant.peers import operations
from sandbox.doubles.qdrant.peers.consensus import Edit, State
from sandbox.doubles.qdrant.peers.network import VERSION
from sandbox.machine.paths import write_atomic

# A killed peer refuses at once. A slow one must not count as dead, so the limit is long.
APPLY_SECONDS, LEAD_SECONDS = 10.0, 40.0
ATTEMPTS = 20
PROPOSED_SECONDS = 0.5
Key = tuple[str, int]


class Replication:
    """The writes of one peer.

    Args:
        peer: the peer.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.operations = 0
        self._count = threading.Lock()
        self._orders: defaultdict[Key, threading.RLock] = defaultdict(threading.RLock)
        self._gates: defaultdict[Key, threading.RLock] = defaultdict(threading.RLock)
        # on a primary: replicas that are being recovered, with their tokens
        self._joining: defaultdict[Key, dict[str, str]] = defaultdict(dict)
        # on a recovering replica: writes that wait for the archive; None when it is in place
        self._queues: dict[Key, list[dict[str, Any]] | None] = {}
        # replicas that missed a write and could not be marked without a majority: (uid, shard, owner)
        self._owed_file = peer.data / "owed.json"
        self._owed: set[tuple[str, int, str]] = set()
        if self._owed_file.exists():
            self._owed = {
                (u, int(s), o)
                for u, s, o in json.loads(self._owed_file.read_text(encoding="utf-8"))
            }

    def replicas(self, uid: str, shard: int) -> dict[str, str]:
        """Owners and states; replicas that are still to be marked count as dead."""
        found = replicas_of(self.peer.meta, uid, shard)
        known = {o: DEAD if (uid, shard, o) in self._owed else state for o, state in found.items()}
        me = self.peer.me.name
        if (uid, shard) in self.peer.lost and any(s == ACTIVE for o, s in known.items() if o != me):
            known[me] = DEAD
        return known

    # ------------------------------------------------------------------ writes
    def write(self, uid: str, per_shard: dict[int, dict[str, Any]]) -> int:
        """Send each shard's operation to its primary.

        Returns:
            Number of the operation.

        Raises:
            Refused: a shard cannot be written, or refuses the operation.
        """
        for shard, operation in per_shard.items():
            for attempt in range(ATTEMPTS):
                try:
                    self._write(uid, shard, operation)
                    break
                except Stale:
                    time.sleep(0.02 * attempt)
                    self.peer.look_around()
            else:
                raise Refused(500, "Service internal error: the shard's replicas keep changing")
        with self._count:
            self.operations += 1
            return self.operations

    def _write(self, uid: str, shard: int, operation: dict[str, Any]) -> None:
        replicas, network = self.replicas(uid, shard), self.peer.network
        leader = primary(replicas)
        if leader is None:
            raise Refused(500, "Service internal error: no active replica")
        if leader == self.peer.me.name:
            return self.lead(uid, shard, operation)
        path = f"lead/{quote(uid, safe='')}/{shard}"
        version = self.peer.meta["version"]
        other = network.peers[leader]
        said = network.call(other, "POST", path, operation, version=version, seconds=LEAD_SECONDS)
        if said is None:
            if list(replicas.values()).count(ACTIVE) < 2:
                raise Refused(500, f"Service internal error: {unavailable(other.uri)}")
            self._lose(uid, shard, [leader])
            raise Stale
        if said.status_code == 409:
            self.peer.catch_up(other, int(said.headers.get(VERSION, 0)))
            raise Stale
        if said.status_code != 200:
            raise Refused(said.status_code, said.json()["error"])
        return None

    def lead(self, uid: str, shard: int, operation: dict[str, Any]) -> None:
        """Run an operation as the primary: here and on all other live replicas.

        Raises:
            Stale: this peer is not the primary.
        """
        with self._orders[uid, shard]:
            replicas, me = self.replicas(uid, shard), self.peer.me.name
            if primary(replicas) != me:
                raise Stale
            operations.apply(self.peer.local(uid, shard), operation)
            joining = self._joining[uid, shard]
            targets = [o for o, s in replicas.items() if o != me and (s == ACTIVE or o in joining)]
            lost = [o for o in targets if not self._hand(o, uid, shard, operation)]
            if lost:
                # also recovering ones: they may be marked active already
                self._lose(uid, shard, lost)
                for owner in lost:
                    joining.pop(owner, None)

    def apply(self, uid: str, shard: int, operation: dict[str, Any], sender: str) -> None:
        """Run an operation from the primary on this replica.

        Raises:
            Stale: the sender is not the primary, or this replica must not be written.
        """
        key = (uid, shard)
        with self._gates[key]:
            replicas = self.replicas(uid, shard)
            queue = self._queues.get(key)
            if primary(replicas) != sender:
                raise Stale(f"{sender} is not the primary of shard {shard}")
            if queue is not None:
                queue.append(operation)
            elif key in self._queues or replicas.get(self.peer.me.name) == ACTIVE:
                operations.apply(self.peer.local(uid, shard), operation)
            else:
                raise Stale(f"the replica of shard {shard} is not active")

    def _hand(self, owner: str, uid: str, shard: int, operation: dict[str, Any]) -> bool:
        other, version = self.peer.network.peers[owner], self.peer.meta["version"]
        path = f"apply/{quote(uid, safe='')}/{shard}"
        said = self.peer.network.call(
            other, "POST", path, operation, version=version, seconds=APPLY_SECONDS
        )
        if said is not None and said.status_code == 409:
            self.peer.catch_up(other, int(said.headers.get(VERSION, 0)))
            if primary(self.replicas(uid, shard)) != self.peer.me.name:
                raise Stale
        return said is not None and said.status_code == 200

    def _lose(self, uid: str, shard: int, owners: list[str]) -> None:
        """Mark replicas that lack a write as dead; without a majority, record them for later."""
        try:
            if not self.peer.network.majority():
                raise NoConsensus
            self._mark_dead(uid, shard, owners)
        except NoConsensus:
            # as the real server, which acknowledges at consistency factor 1 and disables the replica for itself
            self._owe({(uid, shard, owner) for owner in owners})

    def _mark_dead(self, uid: str, shard: int, owners: list[str]) -> None:
        me = self.peer.me.name

        def edit(meta: State) -> None:
            replicas = replicas_of(meta, uid, shard)
            if me in replicas and replicas[me] != ACTIVE:
                raise Stale
            if not any(s == ACTIVE for o, s in replicas.items() if o not in owners):
                raise Stale  # the last active replica is never marked dead
            replicas.update({owner: DEAD for owner in owners if owner in replicas})

        self.peer.change(edit)

    # ------------------------------------------------------------------ replicas that come back
    def repair(self) -> None:
        """Mark recorded replicas, complete changes of other peers, and recover own replicas."""
        try:
            if self.peer.network.majority():
                for uid, shard, owner in sorted(self._owed):
                    self._settle(uid, shard, owner)
                if self.peer.acceptor.state["version"] > self.peer.meta["version"]:
                    self.peer.consensus.change()
                for uid, shard in sorted(self.peer.lost):
                    self._settle(uid, shard, self.peer.me.name)
        except NoConsensus:
            return
        for found in list(self.peer.meta["collections"].values()):
            for shard, replicas in found["shards"].items():
                if replicas.get(self.peer.me.name) == DEAD:
                    self._recover(found["uid"], int(shard), primary(replicas))

    def join(self, uid: str, shard: int, owner: str, archive: Path) -> str:
        """As the primary, start the recovery of a replica: create an archive, and send it all writes from then on.

        Returns:
            A token that the replica sends when it has everything.
        """
        with self._orders[uid, shard]:
            if primary(self.replicas(uid, shard)) != self.peer.me.name:
                raise Stale
            self.peer.local(uid, shard).snapshot(archive)
            token = uuid4().hex
            self._joining[uid, shard][owner] = token
            return token

    def joined(self, uid: str, shard: int, owner: str, token: str) -> None:
        """As the primary, mark a replica active that has the archive and all later writes."""
        with self._orders[uid, shard]:
            joining, me = self._joining[uid, shard], self.peer.me.name
            if joining.get(owner) != token:
                raise Stale("a write did not arrive: from the beginning")

            def edit(meta: State) -> None:
                replicas = replicas_of(meta, uid, shard)
                if primary(replicas) != me:
                    raise Stale
                replicas[owner] = ACTIVE

            self.peer.change(edit)
            joining.pop(owner)
            self._owe({(uid, shard, owner)}, paid=True)
            if primary(self.replicas(uid, shard)) != me:
                joining.clear()  # the next primary starts their recovery again

    def replace(self, uid: str, shard: int, archive: Path, priority: str) -> None:
        """Replace a shard by an archive.

        Args:
            uid: id of the collection.
            shard: its number.
            archive: a snapshot of a shard.
            priority: `snapshot`: the other replicas are replaced by this one; `replica`: this one is replaced by the
                others; `no_sync`: each keeps its points.
        """
        me = self.peer.me.name
        with self._orders[uid, shard]:
            self.peer.local(uid, shard).restore(archive)
            self._joining[uid, shard].clear()
            if len(replicas_of(self.peer.meta, uid, shard)) < 2 or priority == "no_sync":
                return

            def edit(meta: State) -> None:
                replicas = replicas_of(meta, uid, shard)
                others = any(s == ACTIVE for o, s in replicas.items() if o != me)
                if priority == "replica" and others:
                    replicas[me] = DEAD
                else:
                    replicas.update({o: ACTIVE if o == me else DEAD for o in replicas})

            if priority == "replica":
                self.peer.change(edit)
            else:
                self._propose(edit)

    def _propose(self, edit: Edit) -> None:
        """Make a change in the background.

        The real server answers an upload when the other replicas are *proposed* to be dead. Until the peers agree, the
        empty replicas count as active (src/common/snapshots.rs: `recover_shard_snapshot_impl`).
        """

        def agree() -> None:
            with contextlib.suppress(Refused):  # the collection was deleted
                self.peer.change(edit)

        timer = threading.Timer(PROPOSED_SECONDS, agree)
        timer.daemon = True
        timer.start()

    def _recover(self, uid: str, shard: int, source: str | None) -> None:
        key, network = (uid, shard), self.peer.network
        if source is None or source == self.peer.me.name:
            return
        other, version = network.peers[source], self.peer.meta["version"]
        self._joining[
            key
        ].clear()  # replicas that this peer was recovering as the primary must start again
        scratch = self.peer.data / f"join-{uuid4().hex}"
        path = f"{quote(uid, safe='')}/{shard}"
        self._queues[key] = []
        try:
            token = network.download(other, f"join/{path}", scratch, version=version)
            if token is None:
                return
            self.peer.local(uid, shard).restore(scratch)
            with self._gates[key]:
                for operation in self._queues[key] or ():
                    operations.apply(self.peer.local(uid, shard), operation)
                self._queues[key] = None
            body = {"token": token}
            network.call(other, "POST", f"joined/{path}", body, seconds=LEAD_SECONDS)
            self.peer.catch_up(other)
        except Refused:
            return  # the next round starts again
        finally:
            scratch.unlink(missing_ok=True)
            with self._gates[key]:
                self._queues.pop(key, None)

    def _settle(self, uid: str, shard: int, owner: str) -> None:
        try:
            self._mark_dead(uid, shard, [owner])
        except NoConsensus:
            return
        except Refused:
            pass  # the shard was deleted, its state has changed, or no other peer has it
        if owner == self.peer.me.name:
            self.peer.lost.discard((uid, shard))
        self._owe({(uid, shard, owner)}, paid=True)

    def _owe(self, entries: set[tuple[str, int, str]], paid: bool = False) -> None:
        with self._count:
            before = set(self._owed)
            self._owed = before - entries if paid else before | entries
            if self._owed != before:
                write_atomic(self._owed_file, json.dumps(sorted(self._owed)))
