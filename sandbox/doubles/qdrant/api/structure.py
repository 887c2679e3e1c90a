"""The routes of the cluster, of collections, aliases and indexes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sandbox.doubles.qdrant.api.wire import Raw, Wire
from sandbox.doubles.qdrant.errors import (
    Refused,
    malformed,
    missing_collection,
    understanding,
)
from sandbox.doubles.qdrant.limits import require_index
from sandbox.doubles.qdrant.peer import DEAD
from sandbox.doubles.qdrant.peers import operations
from sandbox.doubles.qdrant.peers.consensus import State

VERSION = "1.16.3"  # the version whose answers were recorded
NAME_AT_MOST = 255
UNKNOWN = ("sparse_vectors",)
# Keys of `params` that only an update accepts; a creation ignores them (`CreateCollection` lacks them).
LATER = ("read_fan_out_factor", "read_fan_out_delay_ms")


class Structure(Wire):
    """The routes of the cluster and of collections."""

    def about(self) -> Any:
        return {"title": "qdrant - vector search engine", "version": VERSION, "commit": "double"}

    def healthy(self) -> Any:
        raise Raw("healthz check passed")

    def is_ready(self) -> Any:
        raise Raw("all shards are ready")  # also if other peers are down, like the real server

    def cluster(self) -> Any:
        network, me = self.peer.network, self.peer.me
        leader = min(network.alive(), key=lambda p: p.name)
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        return {
            "status": "enabled",
            "peer_id": me.identity,
            "peers": {str(p.identity): {"uri": p.uri} for p in network.peers.values()},
            "raft_info": {
                "term": 1,
                "commit": self.peer.meta["version"],
                "pending_operations": 0,
                "leader": leader.identity,  # the real leader does not step down without a quorum either
                "role": "Leader" if leader == me else "Follower",
                "is_voter": True,
            },
            "consensus_thread_status": {"consensus_thread_status": "working", "last_update": at},
            "message_send_failures": dict(network.failures),
        }

    # ------------------------------------------------------------------ collections
    def collections(self) -> Any:
        return {"collections": [{"name": name} for name in sorted(self.peer.meta["collections"])]}

    def create(self, name: str) -> Any:
        if len(name) > NAME_AT_MOST or set(name) & set('<>:"/\\|?*\0'):
            text = f"[collection_name: value {name!r} invalid]"
            raise Refused(422, f"Validation error in path parameters: {text}")
        spec = self.json_body()
        if unknown := [key for key in UNKNOWN if spec.get(key) is not None]:
            raise malformed(f"this double knows no {unknown[0]}")
        self.peer.create(name, {key: value for key, value in spec.items() if key not in LATER})
        return True

    def alter(self, name: str) -> Any:
        """Fields of each part are merged (lib/collection/src/operations/config_diff.rs)."""
        change = self.json_body()
        self.peer.alter(self.peer.collection(name)["name"], {**change, **change.pop("params", {})})
        return True

    def make_key(self, name: str) -> Any:
        body, found = self.json_body(), self.peer.collection(name)
        spec = found["spec"]
        with understanding():
            key, count = body["shard_key"], int(body.get("shards_number") or spec["shard_number"])
            copies = int(body.get("replication_factor") or spec.get("replication_factor") or 1)
        self.peer.add_key(found["name"], key, count, copies)
        return True

    def drop(self, name: str) -> Any:
        return self.peer.drop(name)

    def exists(self, name: str) -> Any:
        return {
            "exists": name in self.peer.meta["collections"] or name in self.peer.meta["aliases"]
        }

    def describe(self, name: str) -> Any:
        found = self.peer.collection(name)
        spec = found["spec"]
        count = sum(self.read(found, {"count": {}}))
        dead = any(state == DEAD for r in found["shards"].values() for state in r.values())
        params = {
            "vectors": spec["vectors"],
            "shard_number": spec["shard_number"],
            "replication_factor": int(spec.get("replication_factor") or 1),
            "write_consistency_factor": int(spec.get("write_consistency_factor") or 1),
            "on_disk_payload": bool(spec.get("on_disk_payload", True)),
        } | {key: spec[key] for key in ("sharding_method", *LATER) if key in spec}
        given = {"optimizer_config": spec.get("optimizers_config") or {}} | {
            key: spec.get(key) or {} for key in ("hnsw_config", "wal_config")
        }
        changed = {key: DEFAULTS[key] | values for key, values in given.items()}
        changed["quantization_config"] = spec.get("quantization_config")
        shown = ("strict_mode_config", "metadata")
        changed |= {key: spec[key] for key in shown if spec.get(key) is not None}
        return {
            "status": "yellow" if dead else "green",
            "optimizer_status": "ok",
            "indexed_vectors_count": 0,
            "points_count": count,
            "segments_count": len(found["shards"]) * 2,
            "config": {"params": params, **DEFAULTS, **changed},
            "payload_schema": {
                field: {"data_type": kind, "points": count}
                for field, kind in found["indexes"].items()
            },
        }

    def layout(self, name: str) -> Any:
        found, me = self.peer.collection(name), self.peer.me
        keys = found.get("keys") or {}
        keyed = {s: {"shard_key": keys[s]} if s in keys else {} for s in found["shards"]}
        local = [
            {
                "shard_id": int(s),
                **keyed[s],
                "points_count": self.peer.local(found["uid"], int(s)).count(),
                "state": replicas[me.name],
            }
            for s, replicas in found["shards"].items()
            if me.name in replicas
        ]
        peers = self.peer.network.peers
        remote = [
            {"shard_id": int(s), **keyed[s], "peer_id": peers[owner].identity, "state": state}
            for s, replicas in found["shards"].items()
            for owner, state in replicas.items()
            if owner != me.name
        ]
        return {"peer_id": me.identity, "shard_count": len(found["shards"]), "local_shards": local,
                "remote_shards": remote, "shard_transfers": []}  # fmt: skip

    # ------------------------------------------------------------------ aliases and indexes
    def change_aliases(self) -> Any:
        body = self.json_body()
        with understanding():
            actions = [next(iter(action.items())) for action in list(body["actions"])]

        def edit(meta: State) -> None:
            with understanding():
                for kind, spec in actions:
                    _alias(meta, kind, spec)

        self.peer.change(edit)
        return True

    def aliases(self, name: str = "") -> Any:
        wanted = self.peer.collection(name)["name"] if name else ""
        found = [
            {"alias_name": alias, "collection_name": target}
            for alias, target in sorted(self.peer.meta["aliases"].items())
            if not wanted or target == wanted
        ]
        return {"aliases": found}

    def index(self, name: str) -> Any:
        spec = self.json_body()
        found, kind = self.peer.collection(name), operations.schema(spec)
        require_index(found["spec"], len(found["indexes"]))
        number = self.replication.write(
            found["uid"], {int(s): {"index": spec} for s in found["shards"]}
        )

        def edit(meta: State) -> None:
            _by_uid(meta, found["uid"], name)["indexes"][spec["field_name"]] = kind

        self.peer.change(edit)
        return {"operation_id": number, "status": "completed"}


def _by_uid(meta: State, uid: str, name: str) -> dict[str, Any]:
    for found in meta["collections"].values():
        if found["uid"] == uid:
            known: dict[str, Any] = found
            return known
    raise missing_collection(name)


def _alias(meta: State, kind: str, spec: dict[str, Any]) -> None:
    aliases = meta["aliases"]
    match kind:
        case "create_alias":
            alias, target = str(spec["alias_name"]), spec["collection_name"]
            if target not in meta["collections"]:
                raise missing_collection(target)
            if alias in meta["collections"]:
                raise Refused(409, f"Wrong input: Collection `{alias}` already exists!")
            aliases[alias] = target
        case "delete_alias":
            aliases.pop(spec["alias_name"], None)  # an alias that does not exist is not an error
        case "rename_alias":
            new, old = str(spec["new_alias_name"]), spec["old_alias_name"]
            if old not in aliases:
                raise Refused(404, f"Not found: Alias {old} does not exists!")
            aliases[new] = aliases.pop(old)
        case _:
            raise malformed(f"unknown variant `{kind}`")


DEFAULTS: dict[str, Any] = {
    "hnsw_config": {
        "m": 16,
        "ef_construct": 100,
        "full_scan_threshold": 10000,
        "max_indexing_threads": 0,
        "on_disk": False,
    },
    "optimizer_config": {
        "deleted_threshold": 0.2,
        "vacuum_min_vector_number": 1000,
        "default_segment_number": 0,
        "max_segment_size": None,
        "memmap_threshold": None,
        "indexing_threshold": 10000,
        "flush_interval_sec": 5,
        "max_optimization_threads": None,
    },
    "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1},
}
