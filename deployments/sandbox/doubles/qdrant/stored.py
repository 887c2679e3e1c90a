"""The routes of points: written, read, counted, searched."""

from __future__ import annotations

from typing import Any

from deployments.sandbox.doubles.qdrant import points
from deployments.sandbox.doubles.qdrant.errors import malformed, understanding
from deployments.sandbox.doubles.qdrant.operations import limit_of
from deployments.sandbox.doubles.qdrant.wire import Wire

SCROLLS = ("limit", "offset", "filter", "with_payload", "with_vector")
QUERIES = ("query", "using", "limit", "filter", "params", "with_payload", "with_vector")


class Stored(Wire):
    """Those routes."""

    # ------------------------------------------------------------------ writes
    def upsert(self, name: str) -> Any:
        spec, found = self.json_body(), self.peer.collection(name)
        with understanding():
            by_id = {point["id"]: point for point in map(_point, spec["points"])}
            parts = _split(found, list(by_id))
        per_shard = {shard: {"upsert": [by_id[i] for i in ids]} for shard, ids in parts.items()}
        return self._written(found, per_shard)

    def delete_points(self, name: str) -> Any:
        spec, found = self.json_body(), self.peer.collection(name)
        per_shard: dict[int, dict[str, Any]]
        with understanding():
            if "points" in spec:
                ids = [points.identity(i) for i in spec["points"]]
                per_shard = {s: {"delete": part} for s, part in _split(found, ids).items()}
            else:
                points.condition(spec["filter"])  # refused before any shard has done it
                per_shard = {int(s): {"delete_by": spec["filter"]} for s in found["shards"]}
        return self._written(found, per_shard)

    def _written(self, found: dict[str, Any], per_shard: dict[int, dict[str, Any]]) -> Any:
        number = self.replication.write(found["uid"], per_shard)
        return {"operation_id": number, "status": "completed"}

    # ------------------------------------------------------------------ reads
    def count(self, name: str) -> Any:
        spec, found = self.json_body(), self.peer.collection(name)
        return {"count": sum(self.read(found, {"count": spec}))}

    def scroll(self, name: str) -> Any:
        spec, found = self.json_body(), self.peer.collection(name)
        _only(spec, SCROLLS)
        limit = limit_of(spec)
        if spec.get("offset") is not None:
            spec["offset"] = points.identity(spec["offset"])
        answers = self.read(found, {"scroll": spec})
        # numbers before UUIDs, as each shard has them
        all_found = sorted(
            (p for part in answers for p in part), key=lambda p: (isinstance(p["id"], str), p["id"])
        )
        following = all_found[limit]["id"] if len(all_found) > limit else None
        shown = _shown(all_found[:limit], spec, payload=True)
        return {"points": shown, "next_page_offset": following}

    def query_points(self, name: str) -> Any:
        spec, found = self.json_body(), self.peer.collection(name)
        _only(spec, QUERIES)
        limit = limit_of(spec)
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
        points_found = [
            point
            for shard, part in sorted(_split(found, ids).items())
            for answer in self.read(found, {"retrieve": part}, [shard])
            for point in answer
        ]
        return _shown(points_found, spec, payload=True)


def _point(given: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": points.identity(given["id"]),
        "vector": given["vector"],
        "payload": given.get("payload"),
    }


def _split(found: dict[str, Any], ids: list[int | str]) -> dict[int, list[int | str]]:
    """Point ids by shard."""
    count = int(found["spec"]["shard_number"])
    parts: dict[int, list[int | str]] = {}
    for point in ids:
        parts.setdefault(points.shard_of(point, count), []).append(point)
    return parts


def _only(spec: dict[str, Any], known: tuple[str, ...]) -> None:
    """Refuse fields that would be ignored: their asker would take the answer for another."""
    if unknown := sorted(set(spec) - set(known)):
        raise malformed(f"this double knows no {unknown[0]}")


def _shown(
    points_found: list[dict[str, Any]], spec: dict[str, Any], payload: bool
) -> list[dict[str, Any]]:
    """Points without what was not asked for; `payload` says whether it is shown when nothing is said of it."""
    wanted = {
        "payload": spec.get("with_payload", payload),
        "vector": spec.get("with_vector", False),
    }
    if not all(isinstance(given, bool) for given in wanted.values()):
        raise malformed("this double shows all of payload and vectors, or nothing")
    return [{k: v for k, v in p.items() if wanted.get(k, True)} for p in points_found]
