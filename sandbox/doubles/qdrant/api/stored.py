"""The routes of points: write, read, count, search."""

from __future__ import annotations

from typing import Any

from sandbox.doubles.qdrant import points
from sandbox.doubles.qdrant.api.wire import Wire
from sandbox.doubles.qdrant.errors import malformed, understanding
from sandbox.doubles.qdrant.keys import shards_of, split
from sandbox.doubles.qdrant.limits import require_page
from sandbox.doubles.qdrant.peers.operations import limit_of

SCROLLS = ("limit", "offset", "filter", "with_payload", "with_vector", "shard_key")
QUERIES = ("query", "using", "limit", "filter", "params", "with_payload", "with_vector")


class Stored(Wire):
    """The routes of points."""

    # ------------------------------------------------------------------ writes
    def upsert(self, name: str) -> Any:
        spec, found = self.json_body(), self.peer.collection(name)
        with understanding():
            by_id = {point["id"]: point for point in map(_point, spec["points"])}
            parts = split(found, list(by_id), spec.get("shard_key"), writing=True)
        per_shard = {shard: {"upsert": [by_id[i] for i in ids]} for shard, ids in parts.items()}
        return self._written(found, per_shard)

    def delete_points(self, name: str) -> Any:
        spec, found = self.json_body(), self.peer.collection(name)
        per_shard: dict[int, dict[str, Any]]
        with understanding():
            if "points" in spec:
                ids = [points.identity(i) for i in spec["points"]]
                parts = split(found, ids, spec.get("shard_key"), writing=True)
                per_shard = {s: {"delete": part} for s, part in parts.items()}
            else:
                points.condition(spec["filter"])  # check it before any shard runs the operation
                chosen = shards_of(found, spec.get("shard_key"))
                per_shard = {s: {"delete_by": spec["filter"]} for s in chosen}
        return self._written(found, per_shard)

    def _written(self, found: dict[str, Any], per_shard: dict[int, dict[str, Any]]) -> Any:
        number = self.replication.write(found["uid"], per_shard)
        return {"operation_id": number, "status": "completed"}

    # ------------------------------------------------------------------ reads
    def count(self, name: str) -> Any:
        spec, found = self.json_body(), self.peer.collection(name)
        self.peer.rates.read(found["uid"], found["spec"])
        shards = shards_of(found, spec.get("shard_key"))
        return {"count": sum(self.read(found, {"count": spec}, shards))}

    def scroll(self, name: str) -> Any:
        spec, found = self.json_body(), self.peer.collection(name)
        _only(spec, SCROLLS)
        limit = limit_of(spec)
        require_page(found["spec"], limit)
        self.peer.rates.read(found["uid"], found["spec"])
        if spec.get("offset") is not None:
            spec["offset"] = points.identity(spec["offset"])
        shards = shards_of(found, spec.pop("shard_key", None))
        answers = self.read(found, {"scroll": spec}, shards)
        # an id that two keys have is returned once (lib/collection/src/collection/point_ops.rs: `scroll_by`)
        by_id = {p["id"]: p for part in _keyed(found, shards, answers) for p in part}
        # numbers before UUIDs, as each shard has them
        all_found = sorted(by_id.values(), key=lambda p: (isinstance(p["id"], str), p["id"]))
        following = all_found[limit]["id"] if len(all_found) > limit else None
        shown = _shown(all_found[:limit], spec, payload=True)
        return {"points": shown, "next_page_offset": following}

    def query_points(self, name: str) -> Any:
        spec, found = self.json_body(), self.peer.collection(name)
        _only(spec, QUERIES)
        limit = limit_of(spec)
        require_page(found["spec"], limit)
        self.peer.rates.read(found["uid"], found["spec"])
        with understanding():
            if not all(isinstance(n, (int, float)) for n in spec["query"]):
                raise malformed("query: expected a vector")
        less = points.nearer_is_less(found["spec"]["vectors"], str(spec.get("using") or ""))
        answers = self.read(found, {"query": spec})
        hits = sorted(
            (p for part in answers for p in part), key=lambda p: p["score"], reverse=not less
        )
        return {"points": _shown(hits[:limit], spec, payload=False)}

    def retrieve(self, name: str) -> Any:
        spec, found = self.json_body(), self.peer.collection(name)
        with understanding():
            ids = [points.identity(i) for i in spec["ids"]]
        parts = split(found, ids, spec.get("shard_key"), writing=False)
        points_found = [
            point
            for shard, part in sorted(parts.items())
            for answer in _keyed(found, [shard], self.read(found, {"retrieve": part}, [shard]))
            for point in answer
        ]
        return _shown(points_found, spec, payload=True)


def _point(given: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": points.identity(given["id"]),
        "vector": given["vector"],
        "payload": given.get("payload"),
    }


def _keyed(
    found: dict[str, Any], shards: list[int], answers: list[list[dict[str, Any]]]
) -> list[list[dict[str, Any]]]:
    """Points with the keys of the shards that they are from."""
    keys = found.get("keys") or {}
    return [
        [{**p, "shard_key": keys[str(shard)]} for p in part] if str(shard) in keys else part
        for shard, part in zip(shards, answers, strict=True)
    ]


def _only(spec: dict[str, Any], known: tuple[str, ...]) -> None:
    """Refuse unknown fields, which would otherwise be ignored silently."""
    if unknown := sorted(set(spec) - set(known)):
        raise malformed(f"this double knows no {unknown[0]}")


def _shown(
    points_found: list[dict[str, Any]], spec: dict[str, Any], payload: bool
) -> list[dict[str, Any]]:
    """Points with the requested parts only; `payload` is the default for the payload."""
    wanted = {
        "payload": spec.get("with_payload", payload),
        "vector": spec.get("with_vector", False),
    }
    if not all(isinstance(given, bool) for given in wanted.values()):
        raise malformed("this double shows all of payload and vectors, or nothing")
    return [{k: v for k, v in p.items() if wanted.get(k, True)} for p in points_found]
