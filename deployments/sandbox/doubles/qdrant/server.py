"""The routes: the public API on 6333, the peers' own on 6335."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from deployments.sandbox.doubles.qdrant import operations
from deployments.sandbox.doubles.qdrant.errors import Refused
from deployments.sandbox.doubles.qdrant.peer import DEAD, P2P_PORT, Peer

VERSION = "1.16.3"  # whose answers were recorded
HTTP_PORT = 6333
CHUNK = 1 << 20
READS = ("count", "scroll", "query", "search", "retrieve")
OPEN = ("/", "/readyz", "/livez", "/healthz")


class Raw(Exception):
    """An answer that is no JSON: text, or a file."""

    def __init__(self, body: str | Path) -> None:
        super().__init__()
        self.body = body


class Handler(BaseHTTPRequestHandler):
    """One request of the public API."""

    protocol_version = "HTTP/1.1"
    server_version = "qdrant-double"

    def __init__(self, peer: Peer, keys: tuple[str, str], *args: Any) -> None:
        self.peer = peer
        self.key, self.read_key = keys
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        """Requests are not logged: their keys are in the headers."""

    def handle_request(self) -> None:
        """Answer, in the server's envelope."""
        started = time.monotonic()
        url = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        self._left = int(self.headers.get("content-length") or 0)
        try:
            self._authorise(url.path)
            result = self._route(url.path)
            body: dict[str, Any] = {"result": result, "status": "ok"}
            status = 200
        except Raw as raw:
            self._drain()
            return self._send_raw(raw.body)
        except Refused as refused:
            if refused.plain:
                self._drain()
                return self._send(refused.status, str(refused).encode(), "text/plain")
            body, status = {"status": {"error": str(refused)}}, refused.status
        self._drain()
        if url.path == "/" and status == 200:
            body = body["result"]  # the one answer without an envelope
        else:
            body["time"] = time.monotonic() - started
        return self._send(status, json.dumps(body).encode(), "application/json")

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = handle_request  # noqa: N815

    # ------------------------------------------------------------------ routes
    def _route(self, path: str) -> Any:
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
        self.peer.create(name, self._json())
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
        actions = self._json()["actions"]

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
        spec = self._json()
        found = self.peer.collection(name)
        number = self.peer.write(name, {int(s): {"index": spec} for s in found["shards"]})
        field, schema = spec["field_name"], spec["field_schema"]
        kind = schema if isinstance(schema, str) else schema["type"]
        self.peer.change(
            lambda meta: meta["collections"][found["name"]]["indexes"].update({field: kind})
        )
        return {"operation_id": number, "status": "completed"}

    def upsert(self, name: str) -> Any:
        points = self._json()["points"]
        by_id = {point["id"]: point for point in points}
        parts = self.peer.split(name, list(by_id))
        per_shard = {shard: {"upsert": [by_id[i] for i in ids]} for shard, ids in parts.items()}
        return {"operation_id": self.peer.write(name, per_shard), "status": "completed"}

    def delete_points(self, name: str) -> Any:
        spec = self._json()
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
        return {"count": sum(self.peer.read(name, {"count": self._json()}))}

    def scroll(self, name: str) -> Any:
        spec = self._json()
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
        spec = self._json()
        answers = self.peer.read(name, {"query": spec})
        hits = sorted((p for part in answers for p in part), key=lambda p: -p["score"])
        shown = [
            _show(p, spec.get("with_payload", False), False)
            for p in hits[: int(spec.get("limit") or 10)]
        ]
        return {"points": shown}

    def retrieve(self, name: str) -> Any:
        spec = self._json()
        answers = self.peer.read(name, {"retrieve": spec["ids"]})
        payload, vector = spec.get("with_payload", True), spec.get("with_vector", False)
        return [_show(p, payload, vector) for part in answers for p in part]

    # ------------------------------------------------------------------ snapshots
    def make_shard_snapshot(self, name: str, shard: str) -> Any:
        found = self.peer.collection(name)
        replica = self.peer.local(found["name"], int(shard))
        directory = self._snapshots(found["name"], shard)
        file = directory / f"{found['name']}-shard-{shard}-{_now('%Y-%m-%d-%H-%M-%S')}.snapshot"
        replica.snapshot(file)
        file.with_suffix(".checksum").write_text(_sha256(file))
        return _described(file)

    def shard_snapshots(self, name: str, shard: str) -> Any:
        self.peer.local(self.peer.collection(name)["name"], int(shard))
        return [
            _described(file) for file in sorted(self._snapshots(name, shard).glob("*.snapshot"))
        ]

    def shard_snapshot(self, name: str, shard: str, snapshot: str) -> Any:
        raise Raw(self._snapshot(name, shard, snapshot))

    def drop_shard_snapshot(self, name: str, shard: str, snapshot: str) -> Any:
        file = self._snapshot(name, shard, snapshot)
        file.unlink()
        file.with_suffix(".checksum").unlink(missing_ok=True)
        return True

    def stream_shard_snapshot(self, name: str, shard: str) -> Any:
        found = self.peer.collection(name)
        with tempfile.TemporaryDirectory(dir=self.peer.data) as scratch:
            file = (
                Path(scratch)
                / f"{found['name']}-shard-{shard}-{_now('%Y-%m-%d-%H-%M-%S')}.snapshot"
            )
            self.peer.local(found["name"], int(shard)).snapshot(file)
            self._send_raw(file)
        raise Raw("")

    def upload(self, name: str, shard: str) -> Any:
        found = self.peer.collection(name)
        replica = self.peer.local(found["name"], int(shard))
        with tempfile.TemporaryDirectory(dir=self.peer.data) as scratch:
            file = Path(scratch) / "archive"
            self._receive(file)
            wanted = self.query.get("checksum")
            if wanted and wanted != (actual := _sha256(file)):
                # the real server has the two the wrong way round
                raise Refused(400, f"Checksum mismatch: expected {actual}, actual {wanted}")
            replica.restore(file)
        self.peer.restored(found["name"], int(shard))
        return None

    def collection_snapshots(self, name: str) -> Any:
        found = self.peer.collection(name)["name"]
        return [_described(f) for f in sorted(self._snapshots(found, "all").glob("*.snapshot"))]

    def make_collection_snapshot(self, name: str) -> Any:
        """Of the shards that are here: what a snapshot of a collection is in a cluster."""
        found = self.peer.collection(name)["name"]
        directory = self._snapshots(found, "all")
        stem = f"{found}-{self.peer.me.identity}-{_now('%Y-%m-%d-%H-%M-%S')}"
        return self._bundle(directory / f"{stem}.snapshot", [found])

    def make_full_snapshot(self) -> Any:
        directory = self._snapshots("", "")
        file = directory / f"full-snapshot-{_now('%Y-%m-%d-%H-%M-%S')}.snapshot"
        return self._bundle(file, sorted(self.peer.meta["collections"]))

    def recover(self, name: str) -> Any:
        location = str(self._json()["location"])
        self.peer.collection(name)
        path = location.removeprefix("file://")
        if not Path(path).exists():
            raise Refused(400, f'Bad request: Snapshot file "{path}" does not exist')
        raise Refused(400, "Bad request: this double restores shards, not collections")

    def _bundle(self, target: Path, names: list[str]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=self.peer.data) as scratch:
            root = Path(scratch) / "bundle"
            for name in names:
                for shard, replicas in self.peer.collection(name)["shards"].items():
                    if self.peer.me.name in replicas:
                        part = root / name / shard
                        part.parent.mkdir(parents=True, exist_ok=True)
                        self.peer.local(name, int(shard)).snapshot(part)
            root.mkdir(exist_ok=True)
            archive = shutil.make_archive(str(Path(scratch) / "archive"), "tar", root)
            shutil.move(archive, target)
        target.with_suffix(".checksum").write_text(_sha256(target))
        return _described(target)

    def _snapshots(self, name: str, shard: str) -> Path:
        directory = self.peer.data / "snapshots" / name / shard
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def _snapshot(self, name: str, shard: str, snapshot: str) -> Path:
        file = self._snapshots(self.peer.collection(name)["name"], shard) / snapshot
        if not file.is_file():
            raise Refused(404, f'Not found: Snapshot "{file}" not found')
        return file

    # ------------------------------------------------------------------ wire
    def _authorise(self, path: str) -> None:
        given = self.headers.get("api-key") or str(
            self.headers.get("authorization") or ""
        ).removeprefix("Bearer ")
        if path in OPEN or not self.key or given == self.key:
            return
        if not given:
            raise Refused(
                401, "Must provide an API key or an Authorization bearer token", plain=True
            )
        if given != self.read_key:
            raise Refused(401, "Invalid API key or JWT", plain=True)
        reads = (
            self.command == "GET" or path.rpartition("/")[2] in READS or path.endswith("/points")
        )
        if not reads:
            raise Refused(403, "Forbidden: Global manage access is required", plain=True)

    def _json(self) -> dict[str, Any]:
        text = self.rfile.read(self._left)
        self._left = 0
        try:
            return dict(json.loads(text or b"{}"))
        except ValueError as exc:
            raise Refused(400, f"Format error in JSON body: {exc}") from exc

    def _receive(self, target: Path) -> None:
        """Take the file out of a multipart body with one part, without holding it in memory."""
        boundary = (
            str(self.headers.get("content-type") or "")
            .partition("boundary=")[2]
            .strip('"')
            .encode()
        )
        if not boundary:
            raise Refused(400, "Multipart error: no boundary")
        while True:  # headers of the part
            line = self.rfile.readline()
            self._left -= len(line)
            if line in (b"\r\n", b""):
                break
        rest = self._left - len(b"\r\n--" + boundary + b"--\r\n")
        with target.open("wb") as file:
            while rest > 0 and (chunk := self.rfile.read(min(CHUNK, rest))):
                file.write(chunk)
                rest -= len(chunk)
                self._left -= len(chunk)

    def _drain(self) -> None:
        while self._left > 0 and (chunk := self.rfile.read(min(CHUNK, self._left))):
            self._left -= len(chunk)

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_raw(self, body: str | Path) -> None:
        if body == "":
            return
        if isinstance(body, str):
            self._send(200, body.encode(), "text/plain; charset=utf-8")
            return
        self.send_response(200)
        self.send_header("content-type", "application/octet-stream")
        self.send_header("content-length", str(body.stat().st_size))
        self.send_header("content-disposition", f'attachment; filename="{body.name}"')
        self.end_headers()
        with body.open("rb") as file:
            shutil.copyfileobj(file, self.wfile, CHUNK)


class Internal(BaseHTTPRequestHandler):
    """One request of another peer."""

    protocol_version = "HTTP/1.1"

    def __init__(self, peer: Peer, *args: Any) -> None:
        self.peer = peer
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        """The metadata, or a shard's archive."""
        parts = urlsplit(self.path).path.strip("/").split("/")
        if parts[0] == "meta":
            return self._send(200, json.dumps(self.peer.meta).encode())
        with tempfile.TemporaryDirectory(dir=self.peer.data) as scratch:
            file = Path(scratch) / "archive"
            self.peer.local(unquote(parts[1]), int(parts[2])).snapshot(file)
            return self._send(200, file.read_bytes())

    def do_PUT(self) -> None:
        """Newer metadata."""
        self.peer.take(self._json())
        self._send(200, b"{}")

    def do_POST(self) -> None:
        """An operation or a question for a replica."""
        kind, name, shard = urlsplit(self.path).path.strip("/").split("/")
        try:
            if kind == "apply":
                self.peer.apply(unquote(name), int(shard), self._json())
                return self._send(200, b"{}")
            answer = operations.ask(self.peer.local(unquote(name), int(shard)), self._json())
            return self._send(200, json.dumps(answer).encode())
        except Refused as refused:
            return self._send(refused.status, json.dumps({"error": str(refused)}).encode())

    def _json(self) -> dict[str, Any]:
        return dict(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(body)


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


def _described(file: Path) -> dict[str, Any]:
    made = datetime.fromtimestamp(file.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    checksum = file.with_suffix(".checksum").read_text()
    return {
        "name": file.name,
        "creation_time": made,
        "size": file.stat().st_size,
        "checksum": checksum,
    }


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _now(form: str) -> str:
    return datetime.now(UTC).strftime(form)


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
