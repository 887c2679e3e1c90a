"""Peers of a Qdrant cluster in memory: what the product asks them, answered as the real server's source has it.

Every request goes through httpx, so paths arrive as they are sent. Names of files are those of qdrant/qdrant v1.19.0.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import httpx

from archive.backup.cleanup_journal import CleanupJournal
from archive.backup.manifest import Artefact, Measure
from components.access import Access, Endpoint
from components.qdrant.collections.snapshot import TAR_END

ACTIVE, DEAD = "Active", "Dead"
BEGUN_AT = datetime(2026, 12, 24, 1, 2, 3, tzinfo=UTC)
Point = dict[str, Any]


class Refusal(Exception):
    """An answer that is no 200."""

    def __init__(self, status: int, words: str, retry_after: int | None = None) -> None:
        super().__init__(words)
        self.status, self.retry_after = status, retry_after


@dataclass
class Shard:
    """A shard.

    Attributes:
        replicas: peer id → state.
        points: peer id → id → point.
        key: its shard key.
        dying: replicas that are proposed to be dead → looks at the collection until that is agreed on.
        filling: dead replicas → looks until they are filled and active.
        views: peer that sees the replicas in another way than the others → their states as it sees them.
    """

    replicas: dict[int, str]
    points: dict[int, dict[Any, Point]]
    key: Any = None
    dying: dict[int, int] = field(default_factory=dict)
    filling: dict[int, int] = field(default_factory=dict)
    views: dict[int, dict[int, str]] = field(default_factory=dict)

    def look(self) -> None:
        """Consensus goes on a little."""
        for peer in list(self.dying):
            self.dying[peer] -= 1
            if self.dying[peer] < 0:
                del self.dying[peer]
                self.replicas[peer], self.filling[peer] = DEAD, 2
        for peer in list(self.filling):
            self.filling[peer] -= 1
            if self.filling[peer] < 0:
                del self.filling[peer]
                source = next(p for p, s in self.replicas.items() if s == ACTIVE)
                self.points[peer] = dict(self.points[source])
                self.replicas[peer] = ACTIVE


@dataclass
class Collection:
    """A collection."""

    config: dict[str, Any]
    shards: dict[int, Shard]
    indexes: dict[str, Any] = field(default_factory=dict)
    status: str = "green"
    tokens: float = 0.0  # of the read rate limit; 0 before the first read


class Cluster:
    """Peers, their collections, and what was asked of them.

    Args:
        members: how many peers.

    Attributes:
        lost: peers that the cluster remembers though they are gone: id → address.
        away: members that do not answer.
        stopped: member → error of its consensus thread.
        before: called with member, method and path ahead of every answer; may raise Refusal or change something.
        requests: `METHOD path`, in order.
        disk: member → size in bytes, percent used; none tells by default.
        write_seconds: how long a write of points takes.
    """

    def __init__(self, members: int = 3) -> None:
        self.members = [f"qdrant-{n}" for n in range(members)]
        self.ids = {name: 101 + n for n, name in enumerate(self.members)}
        self.collections: dict[str, Collection] = {}
        self.aliases: dict[str, str] = {}
        self.snapshots: dict[str, dict[str, bytes]] = {}
        self.lost: dict[int, str] = {}
        self.away: set[str] = set()
        self.stopped: dict[str, str] = {}
        self.disk: dict[str, tuple[int, int]] = {}
        self.before: Callable[[str, str, str], None] = lambda member, method, path: None
        self.requests: list[str] = []
        self.write_seconds = 0.0
        self.now = BEGUN_AT
        self.waited: list[float] = []
        self._lock = threading.RLock()

    # ------------------------------------------------------------------ what tests make
    def access(self, spool: Path = Path("/nonexistent")) -> Access:
        """The way in, for the product."""
        access = Access.__new__(Access)
        backup = SimpleNamespace(
            stall_seconds=30.0, spool=spool, qdrant=SimpleNamespace(full_every_days=1)
        )
        qdrant = SimpleNamespace(members=len(self.members))
        access.settings = SimpleNamespace(  # type: ignore[assignment]
            backup=backup, components=SimpleNamespace(qdrant=qdrant)
        )
        access.timeout_seconds = 1.0
        access.http = httpx.Client(transport=httpx.MockTransport(self.answer))
        access._secrets = {"qdrant-auth": {"api-key": "key"}}
        access.endpoint = lambda pod, port: Endpoint(pod, pod, port, pod, "node")  # type: ignore[method-assign]
        return access

    def sleep(self, seconds: float) -> None:
        """Time passes."""
        self.waited.append(seconds)
        for one in self.collections.values():
            limit = (one.config.get("strict_mode_config") or {}).get("read_rate_limit")
            one.tokens += (limit or 0) / 60 * seconds

    def make(self, name: str, points: int = 0, **config: Any) -> Collection:
        """A collection of unkeyed shards, one a member."""
        params: dict[str, Any] = {"vectors": {"size": 2, "distance": "Dot"}}
        params |= {"shard_number": len(self.members), "replication_factor": 2}
        params |= {"write_consistency_factor": 1}
        params |= config.pop("params", {})
        made = Collection({**DEFAULTS, "params": params, **config}, {})
        if params.get("sharding_method") != "custom":
            for number in range(params["shard_number"]):
                made.shards[number] = self._shard(number, params["replication_factor"])
        self.collections[name] = made
        self.fill(name, range(points))
        return made

    def fill(self, name: str, ids: Any, key: Any = None) -> None:
        """Write points with simple vectors."""
        made = self.collections[name]
        shards = [n for n, shard in made.shards.items() if shard.key == key]
        for one in ids:
            shard = made.shards[shards[hash(one) % len(shards)]]
            point = {"id": one, "payload": {"n": str(one), "key": key}, "vector": [1.0, 2.0]}
            if key is not None:
                point["shard_key"] = key
            for peer in shard.replicas:
                shard.points[peer][one] = point

    def keyed(self, name: str, *keys: Any) -> Collection:
        """A collection of custom sharding."""
        made = self.make(name, params={"sharding_method": "custom", "shard_number": 1})
        for key in keys:
            self._add_key(made, key, 1)
        return made

    def count(self, name: str) -> list[int]:
        """Points of each replica, by shard and peer."""
        shards = self.collections[name].shards.values()
        return [len(shard.points[peer]) for shard in shards for peer in sorted(shard.replicas)]

    def _shard(self, number: int, copies: int, key: Any = None) -> Shard:
        # all peers that the cluster knows, lost ones too (lib/storage toc/mod.rs: `known_peers`), and no more copies
        # than peers (shard_distribution.rs)
        peers = [*self.ids.values(), *self.lost]
        on = [peers[(number + n) % len(peers)] for n in range(min(copies, len(peers)))]
        return Shard(dict.fromkeys(on, ACTIVE), {peer: {} for peer in on}, key)

    def _add_key(self, made: Collection, key: Any, count: int) -> None:
        # from 1 in an empty collection (lib/collection/src/collection/sharding_keys.rs)
        for _ in range(count):
            number = max(made.shards, default=0) + 1
            made.shards[number] = self._shard(number, made.config["params"]["replication_factor"])
            made.shards[number].key = key

    # ------------------------------------------------------------------ answers
    def answer(self, request: httpx.Request) -> httpx.Response:
        member, path = request.url.host, request.url.raw_path.decode().partition("?")[0]
        if member in self.away:
            raise httpx.ConnectError("connection refused")
        request.read()
        writes = path.endswith("/points") and request.method == "PUT"
        if writes and request.extensions["timeout"]["read"] < self.write_seconds:
            raise httpx.ReadTimeout("slow")
        try:
            self.before(member, request.method, path)
        except Refusal as refusal:
            return _refused(refusal)
        with self._lock:
            return self._answer(request, member, path)

    def _answer(self, request: httpx.Request, member: str, path: str) -> httpx.Response:
        self.requests.append(f"{request.method} {path}")
        try:
            parts = [unquote(part) for part in path.split("/")[1:]]
            found = self._route(self.ids[member], member, request, parts)
        except Refusal as refusal:
            return _refused(refusal)
        if isinstance(found, bytes):
            return httpx.Response(200, content=iter([found]))
        date = {"date": format_datetime(self.now, usegmt=True)}
        if parts == [""]:
            return httpx.Response(200, json=found, headers=date)
        return httpx.Response(200, json={"result": found, "status": "ok"}, headers=date)

    def _route(self, me: int, member: str, request: httpx.Request, parts: list[str]) -> Any:
        body = self._body(request)
        match (request.method, parts):
            case ("GET", [""]):
                return {"title": "qdrant", "version": "1.19.0"}
            case ("GET", ["healthz"]):
                return "healthz check passed"
            case ("GET", ["cluster"]):
                return self._about(me, member)
            case ("GET", ["quotas"]) if member in self.disk:
                return {"usage": {"disk_usage_percent": self.disk[member][1]}}
            case ("GET", ["telemetry"]) if member in self.disk:
                return {"app": {"system": {"disk_size": self.disk[member][0] // 1024}}}
            case ("GET", ["collections"]):
                return {"collections": [{"name": name} for name in self.collections]}
            case ("GET", ["aliases"]):
                found = self.aliases.items()
                return {"aliases": [{"alias_name": a, "collection_name": c} for a, c in found]}
            case ("POST", ["collections", "aliases"]):
                return self._change_aliases(body)
            case ("PUT", ["collections", name]):
                return self._create(name, body)
            case ("DELETE", ["collections", name]):
                self.aliases = {a: c for a, c in self.aliases.items() if c != name}
                return self.collections.pop(name, None) is not None
            case (method, ["collections", name, *rest]):
                if name not in self.collections:
                    raise Refusal(404, f"Not found: Collection `{name}` doesn't exist!")
                return self._of(self.collections[name], name, me, method, rest, body)
        raise Refusal(404, "")

    def _of(
        self, one: Collection, name: str, me: int, method: str, rest: list[str], body: Any
    ) -> Any:
        match (method, rest):
            case ("GET", []):
                schema = {f: {**i, "points": 1} for f, i in one.indexes.items()}
                ok: Any = "ok" if one.status == "green" else {"error": "disk full"}
                return {"status": one.status, "optimizer_status": ok, "config": one.config,
                        "payload_schema": schema}  # fmt: skip
            case ("PATCH", []):
                # fields are merged (lib/collection/src/operations/config_diff.rs)
                for part, change in body.items():
                    one.config[part] = {**(one.config.get(part) or {}), **change}
                return True
            case ("GET", ["cluster"]):
                return self._layout(one, me)
            case ("POST", ["cluster"]):
                return self._replicate(one, **body["replicate_shard"])
            case ("PUT", ["shards"]):
                self._add_key(one, body["shard_key"], body["shards_number"])
                return True
            case ("PUT", ["index"]):
                limits = self._limits(one)
                most = limits.get("max_payload_index_count")
                if most is not None and len(one.indexes) >= most:  # src/common/update.rs
                    text = f"Collection already has the maximum number of payload indices ({most})"
                    raise Refusal(400, f"Wrong input: {text}")
                kind = body["field_schema"]
                one.indexes[body["field_name"]] = (
                    {"data_type": kind} if isinstance(kind, str)
                    else {"data_type": kind["type"], "params": kind}
                )  # fmt: skip
                return {"status": "completed"}
            case ("PUT", ["points"]):
                for point in body["points"]:
                    shard = one.shards[hash(point["id"]) % len(one.shards)]
                    for peer in shard.replicas:
                        shard.points[peer][point["id"]] = point
                return {"status": "completed"}
            case ("POST", ["points"]):
                every = self._read(one, me, None)
                return [every[i] for i in body["ids"] if i in every]
            case ("POST", ["points", "delete"]):
                for shard in one.shards.values():
                    for points in shard.points.values():
                        for gone in body["points"]:
                            points.pop(gone, None)
                return {"status": "completed"}
            case ("POST", ["points", "scroll"]):
                return self._scroll(one, me, body)
            case (_, ["shards", number, "snapshots", *more]):
                return self._snapshots(one, name, me, method, int(number), more, body)
        raise Refusal(404, "")

    def _replicate(
        self, one: Collection, shard_id: int, from_peer_id: int, to_peer_id: int
    ) -> bool:
        # lib/collection/src/shards/transfer/helpers.rs: `validate_transfer`
        shard = one.shards[shard_id]
        if shard.replicas.get(from_peer_id) != ACTIVE:
            raise Refusal(400, f"Wrong input: Shard {shard_id} is not active on {from_peer_id}")
        if to_peer_id in shard.replicas:
            raise Refusal(
                400, f"Wrong input: Shard {shard_id} is already replicated to {to_peer_id}"
            )
        shard.replicas[to_peer_id], shard.filling[to_peer_id] = "Partial", 2
        shard.points[to_peer_id] = {}
        return True

    def _about(self, me: int, member: str) -> dict[str, Any]:
        thread = {"consensus_thread_status": "working"}
        if member in self.stopped:
            thread = {"consensus_thread_status": "stopped_with_err", "err": self.stopped[member]}
        known = {**{i: f"http://{n}:6335/" for n, i in self.ids.items()}, **self.lost}
        return {
            "peer_id": me,
            "peers": {str(peer): {"uri": uri} for peer, uri in known.items()},
            "raft_info": {"leader": min(self.ids.values())},
            "message_send_failures": {},
            "consensus_thread_status": thread,
        }

    def _create(self, name: str, body: dict[str, Any]) -> bool:
        if name in self.collections:
            raise Refusal(409, f"Wrong input: Collection `{name}` already exists!")
        if name in self.aliases:  # toc/create_collection.rs
            raise Refusal(
                400, f"Wrong input: Can't create collection with name {name}. Alias exists"
            )
        top = ("hnsw_config", "wal_config", "quantization_config", "strict_mode_config", "metadata")
        config = {key: body.pop(key) for key in top if key in body}
        config["optimizer_config"] = body.pop("optimizers_config", {})
        ignored = ("read_fan_out_factor", "read_fan_out_delay_ms")  # no field of `CreateCollection`
        params = {key: value for key, value in body.items() if key not in ignored}
        self.make(name, params=params, **config)
        return True

    def _change_aliases(self, body: dict[str, Any]) -> bool:
        for action in body["actions"]:
            made = action["create_alias"]
            if made["alias_name"] in self.collections:
                raise Refusal(
                    409, f"Wrong input: Collection `{made['alias_name']}` already exists!"
                )
            if made["collection_name"] not in self.collections:
                raise Refusal(404, f"Not found: Collection `{made['collection_name']}`")
            self.aliases[made["alias_name"]] = made["collection_name"]
        return True

    def _layout(self, one: Collection, me: int) -> dict[str, Any]:
        for shard in one.shards.values():
            shard.look()
        local, remote = [], []
        for number, shard in one.shards.items():
            keyed = {} if shard.key is None else {"shard_key": shard.key}
            for peer, state in shard.views.get(me, shard.replicas).items():
                copy = {"shard_id": number, "state": state, **keyed}
                if peer == me:
                    local.append({**copy, "points_count": len(shard.points[peer])})
                else:
                    remote.append({**copy, "peer_id": peer})
        return {"peer_id": me, "shard_count": len(one.shards), "local_shards": local,
                "remote_shards": remote, "shard_transfers": []}  # fmt: skip

    @staticmethod
    def _limits(one: Collection) -> dict[str, Any]:
        found = one.config.get("strict_mode_config") or {}
        return found if found.get("enabled") else {}

    def _read(self, one: Collection, me: int, key: Any) -> dict[Any, Point]:
        """Points of the shards of a key, or of all: one of each id then, as the merge of pages leaves it."""
        found: dict[Any, Point] = {}
        for shard in one.shards.values():
            if key is None or shard.key == key:
                active = [peer for peer, state in shard.replicas.items() if state == ACTIVE]
                if active:
                    found |= shard.points[me if me in active else active[0]]
        return found

    def _scroll(self, one: Collection, me: int, body: dict[str, Any]) -> dict[str, Any]:
        limits, limit = self._limits(one), body["limit"]
        most = limits.get("max_query_limit")
        if most is not None and limit > most:  # operations/verification/mod.rs
            raise Refusal(400, f'Bad request: Limit exceeded {limit} > {most} for "limit"')
        if limits.get("read_rate_limit"):
            if one.tokens < 1:
                seconds = -(-60 // limits["read_rate_limit"])
                raise Refusal(429, "Rate limiting exceeded: Read rate limit exceeded", seconds)
            one.tokens -= 1
        every = sorted(
            self._read(one, me, body.get("shard_key")).values(), key=lambda p: str(p["id"])
        )
        start = 0
        if "offset" in body:
            start = [point["id"] for point in every].index(body["offset"])
        rest = every[start + limit :]
        return {"points": every[start : start + limit],
                "next_page_offset": rest[0]["id"] if rest else None}  # fmt: skip

    # ------------------------------------------------------------------ snapshots
    def _snapshots(
        self,
        one: Collection,
        name: str,
        me: int,
        method: str,
        number: int,
        more: list[str],
        body: Any,
    ) -> Any:
        shard = one.shards.get(number)
        if shard is None:
            raise Refusal(404, f"Not found: shard {number} not found")
        if me not in shard.replicas:  # shard_holder/mod.rs: `assert_shard_is_local`
            raise Refusal(400, f"Wrong input: Shard {number} is not a local shard")
        there = self.snapshots.setdefault(f"{me}/{name}/{number}", {})
        match (method, more):
            case ("GET", []):
                return [described(file, data) for file, data in there.items()]
            case ("POST", []):
                return self.make_snapshot(name, me, number)
            case ("GET", [file]):
                return there[file]
            case ("DELETE", [file]):
                if file not in there:
                    raise Refusal(404, "Not found: Snapshot")
                del there[file]
                return True
            case ("POST", ["upload"]):
                shard.points[me] = points_in(body)
                for peer in shard.replicas:
                    if peer != me and shard.replicas[peer] == ACTIVE:
                        shard.dying[peer] = 3  # proposed: src/common/snapshots.rs
                return True
        raise Refusal(404, "")

    def make_snapshot(self, name: str, peer: int, number: int) -> dict[str, Any]:
        """A snapshot of a shard, by the product or by somebody else."""
        file = f"{name}-shard-{number}-{self.now:%Y-%m-%d-%H-%M-%S}.snapshot"
        points = list(self.collections[name].shards[number].points[peer].values())
        data = json.dumps(points).encode() + TAR_END
        self.snapshots.setdefault(f"{peer}/{name}/{number}", {})[file] = data
        return described(file, data)

    @staticmethod
    def _body(request: httpx.Request) -> Any:
        data = request.read()
        if request.headers.get("content-type", "").startswith("multipart"):
            return data
        return json.loads(data) if data else {}


class Stored:
    """A set in memory: written as by a SetWriter, read as by a SetReader.

    Attributes:
        plain: name → bytes.
        manifest: with the fingerprint, once it is set.
    """

    def __init__(self) -> None:
        self.cleanup = CleanupJournal()
        self.earlier: tuple[Any, ...] = ()
        self.interval = False
        self.plain: dict[str, bytes] = {}
        self.referred: list[Artefact] = []
        self._about: dict[str, tuple[str, str]] = {}
        self.manifest = SimpleNamespace(fingerprint=())

    def add(self, name: str, unit: str, form: str, source: Any, estimate: int = 0) -> None:
        self.plain[name], self._about[name] = b"".join(source), (unit, form)

    @property
    def artefacts(self) -> tuple[Artefact, ...]:
        """What a backup in memory lists: those that it refers to."""
        return tuple(self.referred)

    def refer(self, artefact: Artefact, holder: Any) -> None:
        self.referred.append(artefact.model_copy(update={"stored_in": holder.id}))

    def keyed_digest(self, value: Any) -> str:
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

    def add_json(self, name: str, unit: str, document: Any) -> None:
        self.add(name, unit, "JSON", [json.dumps(document).encode()])

    def drop(self, folder: str) -> None:
        self.plain = {n: data for n, data in self.plain.items() if not n.startswith(folder)}

    def names(self, form: str) -> list[str]:
        return sorted(name for name in self.plain if self._about[name][1] == form)

    def unit(self, name: str) -> str:
        return self._about[name][0]

    def size(self, name: str) -> int:
        return len(self.plain[name])

    def sha256(self, name: str) -> str:
        return hashlib.sha256(self.plain[name]).hexdigest()

    def json(self, name: str) -> Any:
        return json.loads(self.plain[name])

    def save(self, name: str, file: Path) -> Path:
        file.write_bytes(self.plain[name])
        return file

    def wanted(self, *units: str) -> list[Measure]:
        """The fingerprint of units."""
        return [one for one in self.manifest.fingerprint if one.unit in units]


DEFAULTS: dict[str, Any] = {
    "hnsw_config": {"m": 16, "on_disk": False},
    "wal_config": {"wal_capacity_mb": 32},
    "optimizer_config": {"deleted_threshold": 0.2, "max_segment_size": None},
    "quantization_config": None,
}


def _refused(refusal: Refusal) -> httpx.Response:
    headers = {"retry-after": str(refusal.retry_after)} if refusal.retry_after else {}
    error = {"status": {"error": str(refusal)}}
    return httpx.Response(refusal.status, json=error, headers=headers)


def described(file: str, data: bytes) -> dict[str, Any]:
    """A snapshot as it is listed."""
    return {"name": file, "size": len(data), "checksum": hashlib.sha256(data).hexdigest()}


def points_in(form: bytes) -> dict[Any, Point]:
    """The points of an uploaded snapshot."""
    text = form.partition(b"\r\n\r\n")[2].partition(TAR_END)[0]
    return {point["id"]: point for point in json.loads(text)}
