"""The routes of the public API on 6333, and the two servers of a peer."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from deployments.sandbox.doubles.qdrant.errors import Refused
from deployments.sandbox.doubles.qdrant.internal import Internal
from deployments.sandbox.doubles.qdrant.peer import DEAD, P2P_PORT, Peer
from deployments.sandbox.doubles.qdrant.snapshots import Snapshots
from deployments.sandbox.doubles.qdrant.wire import Raw

VERSION = "1.16.3"  # whose answers were recorded
HTTP_PORT = 6333


class Handler(Snapshots):
    """One request of the public API."""

    def route(self, path: str) -> Any:
        """Find what answers a path, and let it."""
        for method, pattern, action in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method == self.command:
                return action(self, *(unquote(part) for part in match.groups()))
        raise Refused(404, "")

    def about(self) -> Any:
        return {"title": "qdrant - vector search engine", "version": VERSION, "commit": "double"}

    def healthy(self) -> Any:
        raise Raw("healthz check passed")

    def is_ready(self) -> Any:
        raise Raw("all shards are ready")  # whatever happens to other peers, as the real one says

    def cluster(self) -> Any:
        peer = self.peer
        leader = min(peer.alive(), key=lambda p: p.name)
        role = "Leader" if leader == peer.me else "Follower"
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        return {
            "status": "enabled",
            "peer_id": peer.me.identity,
            "peers": {str(p.identity): {"uri": p.uri} for p in peer.peers.values()},
            "raft_info": {
                "term": 1,
                "commit": peer.meta["version"],
                "pending_operations": 0,
                "leader": leader.identity,  # the real one does not step down without a quorum either
                "role": role,
                "is_voter": True,
            },
            "consensus_thread_status": {"consensus_thread_status": "working", "last_update": at},
            "message_send_failures": dict(peer.failures),
        }

    def collections(self) -> Any:
        return {"collections": [{"name": name} for name in sorted(self.peer.meta["collections"])]}

    def create(self, name: str) -> Any:
        self.peer.create(name, self.json_body())
        return True

    def drop(self, name: str) -> Any:
        def edit(meta: dict[str, Any]) -> None:
            meta["collections"].pop(name, None)
            meta["aliases"] = {a: c for a, c in meta["aliases"].items() if c != name}

        there = name in self.peer.meta["collections"]
        self.peer.change(edit)
        return there

    def exists(self, name: str) -> Any:
        return {
            "exists": name in self.peer.meta["collections"] or name in self.peer.meta["aliases"]
        }

    def describe(self, name: str) -> Any:
        found = self.peer.collection(name)
        spec = found["spec"]
        count = sum(self.peer.read(name, {"count": {}}))
        dead = any(state == DEAD for r in found["shards"].values() for state in r.values())
        params = {
            "vectors": spec["vectors"],
            "shard_number": spec["shard_number"],
            "replication_factor": int(spec.get("replication_factor") or 1),
            "write_consistency_factor": int(spec.get("write_consistency_factor") or 1),
            "on_disk_payload": bool(spec.get("on_disk_payload", True)),
        }
        return {
            "status": "yellow" if dead else "green",
            "optimizer_status": "ok",
            "indexed_vectors_count": 0,
            "points_count": count,
            "segments_count": len(found["shards"]) * 2,
            "config": {
                "params": params,
                **DEFAULTS,
                "hnsw_config": DEFAULTS["hnsw_config"] | (spec.get("hnsw_config") or {}),
            },
            "payload_schema": {
                field: {"data_type": kind, "points": count}
                for field, kind in found["indexes"].items()
            },
        }

    def layout(self, name: str) -> Any:
        found, me = self.peer.collection(name), self.peer.me
        local = [
            {
                "shard_id": int(s),
                "points_count": self.peer.local(found["name"], int(s)).count(),
                "state": replicas[me.name],
            }
            for s, replicas in found["shards"].items()
            if me.name in replicas
        ]
        remote = [
            {"shard_id": int(s), "peer_id": self.peer.peers[owner].identity, "state": state}
            for s, replicas in found["shards"].items()
            for owner, state in replicas.items()
            if owner != me.name
        ]
        return {"peer_id": me.identity, "shard_count": len(found["shards"]), "local_shards": local,
                "remote_shards": remote, "shard_transfers": []}  # fmt: skip

    def change_aliases(self) -> Any:
        actions = self.json_body()["actions"]

        def edit(meta: dict[str, Any]) -> None:
            for action in actions:
                (kind, spec), *_ = action.items()
                if kind == "create_alias":
                    if spec["collection_name"] not in meta["collections"]:
                        raise Refused(
                            404, f"Not found: Collection `{spec['collection_name']}` doesn't exist!"
                        )
                    meta["aliases"][spec["alias_name"]] = spec["collection_name"]
                elif kind == "delete_alias":
                    meta["aliases"].pop(spec["alias_name"], None)
                elif kind == "rename_alias":
                    target = meta["aliases"].pop(spec["old_alias_name"])
                    meta["aliases"][spec["new_alias_name"]] = target

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
        found = self.peer.collection(name)
        number = self.peer.write(name, {int(s): {"index": spec} for s in found["shards"]})
        field, schema = spec["field_name"], spec["field_schema"]
        kind = schema if isinstance(schema, str) else schema["type"]
        self.peer.change(
            lambda meta: meta["collections"][found["name"]]["indexes"].update({field: kind})
        )
        return {"operation_id": number, "status": "completed"}

    def upsert(self, name: str) -> Any:
        points = self.json_body()["points"]
        by_id = {point["id"]: point for point in points}
        parts = self.peer.split(name, list(by_id))
        per_shard = {shard: {"upsert": [by_id[i] for i in ids]} for shard, ids in parts.items()}
        return {"operation_id": self.peer.write(name, per_shard), "status": "completed"}

    def delete_points(self, name: str) -> Any:
        spec = self.json_body()
        if "points" in spec:
            per_shard: dict[int, dict[str, Any]] = {
                shard: {"delete": ids}
                for shard, ids in self.peer.split(name, spec["points"]).items()
            }
        else:
            shards = self.peer.collection(name)["shards"]
            per_shard = {int(s): {"delete_by": spec["filter"]} for s in shards}
        return {"operation_id": self.peer.write(name, per_shard), "status": "completed"}

    def count(self, name: str) -> Any:
        return {"count": sum(self.peer.read(name, {"count": self.json_body()}))}

    def scroll(self, name: str) -> Any:
        spec = self.json_body()
        limit = int(spec.get("limit") or 10)
        answers = self.peer.read(name, {"scroll": spec})
        found = sorted(
            (p for part in answers for p in part), key=lambda p: (str(type(p["id"])), p["id"])
        )
        following = found[limit]["id"] if len(found) > limit else None
        payload, vector = spec.get("with_payload", True), spec.get("with_vector", False)
        return {
            "points": [_show(p, payload, vector) for p in found[:limit]],
            "next_page_offset": following,
        }

    def search(self, name: str) -> Any:
        spec = self.json_body()
        answers = self.peer.read(name, {"query": spec})
        hits = sorted((p for part in answers for p in part), key=lambda p: -p["score"])
        shown = [
            _show(p, spec.get("with_payload", False), False)
            for p in hits[: int(spec.get("limit") or 10)]
        ]
        return {"points": shown}

    def retrieve(self, name: str) -> Any:
        spec = self.json_body()
        answers = self.peer.read(name, {"retrieve": spec["ids"]})
        payload, vector = spec.get("with_payload", True), spec.get("with_vector", False)
        return [_show(p, payload, vector) for part in answers for p in part]


def servers(peer: Peer, key: str, read_key: str) -> tuple[ThreadingHTTPServer, ThreadingHTTPServer]:
    """The two servers of a peer, bound."""
    at = peer.me.address
    return (
        ThreadingHTTPServer((at, HTTP_PORT), partial(Handler, peer, (key, read_key))),
        ThreadingHTTPServer((at, P2P_PORT), partial(Internal, peer)),
    )


def _show(point: dict[str, Any], payload: Any, vector: Any) -> dict[str, Any]:
    hidden = {name for name, wanted in (("payload", payload), ("vector", vector)) if not wanted}
    return {key: value for key, value in point.items() if key not in hidden}


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
    "quantization_config": None,
}

Action = Callable[..., Any]
C = "/collections/([^/]+)"
S = f"{C}/shards/(\\d+)"
ROUTES: tuple[tuple[str, str, Action], ...] = (
    ("GET", "/", Handler.about),
    ("GET", "/(?:healthz|livez)", Handler.healthy),
    ("GET", "/readyz", Handler.is_ready),
    ("GET", "/cluster", Handler.cluster),
    ("GET", "/collections", Handler.collections),
    ("POST", "/collections/aliases", Handler.change_aliases),
    ("GET", "/aliases", Handler.aliases),
    ("PUT", C, Handler.create),
    ("GET", C, Handler.describe),
    ("DELETE", C, Handler.drop),
    ("GET", f"{C}/exists", Handler.exists),
    ("GET", f"{C}/cluster", Handler.layout),
    ("GET", f"{C}/aliases", Handler.aliases),
    ("PUT", f"{C}/index", Handler.index),
    ("PUT", f"{C}/points", Handler.upsert),
    ("POST", f"{C}/points", Handler.retrieve),
    ("POST", f"{C}/points/delete", Handler.delete_points),
    ("POST", f"{C}/points/count", Handler.count),
    ("POST", f"{C}/points/scroll", Handler.scroll),
    ("POST", f"{C}/points/query", Handler.search),
    ("GET", f"{C}/snapshots", Handler.collection_snapshots),
    ("POST", f"{C}/snapshots", Handler.make_collection_snapshot),
    ("PUT", f"{C}/snapshots/recover", Handler.recover),
    ("POST", "/snapshots", Handler.make_full_snapshot),
    ("POST", f"{S}/snapshots/upload", Handler.upload),
    ("POST", f"{S}/snapshots", Handler.make_shard_snapshot),
    ("GET", f"{S}/snapshots", Handler.shard_snapshots),
    ("GET", f"{S}/snapshot", Handler.stream_shard_snapshot),
    ("GET", f"{S}/snapshots/([^/]+)", Handler.shard_snapshot),
    ("DELETE", f"{S}/snapshots/([^/]+)", Handler.drop_shard_snapshot),
)
