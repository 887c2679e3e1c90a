"""JSON of the API ↔ objects of qdrant-edge."""

from __future__ import annotations

import hashlib
from typing import Any

import qdrant_edge as edge

from deployments.sandbox.doubles.qdrant.errors import Refused

DISTANCES = {
    "Cosine": edge.Distance.Cosine,
    "Dot": edge.Distance.Dot,
    "Euclid": edge.Distance.Euclid,
    "Manhattan": edge.Distance.Manhattan,
}


def config(vectors: dict[str, Any]) -> edge.EdgeConfig:
    """The engine's configuration for a collection's `vectors`: one unnamed, or several by name."""
    named = {"": vectors} if "size" in vectors else vectors
    try:
        params = {
            name: edge.EdgeVectorParams(int(v["size"]), DISTANCES[v["distance"]])
            for name, v in named.items()
        }
    except KeyError as exc:
        raise Refused(400, f"Format error in JSON body: missing field `{exc.args[0]}`") from exc
    return edge.EdgeConfig(vectors=params)


def shard_of(point: int | str, shards: int) -> int:
    """Which shard a point belongs to: stable, and spread evenly."""
    digest = hashlib.blake2b(str(point).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shards


def upsert(points: list[dict[str, Any]]) -> edge.UpdateOperation:
    """Insert or replace points."""
    return edge.UpdateOperation.upsert_points(
        [edge.Point(p["id"], p["vector"], p.get("payload") or {}) for p in points]
    )


def record(found: Any, payload: bool, vector: bool) -> dict[str, Any]:
    """A point as the API shows it."""
    shown: dict[str, Any] = {"id": _id(found.id)}
    if payload:
        shown["payload"] = found.payload
    if vector:
        vectors = found.vector
        shown["vector"] = (
            vectors[""] if isinstance(vectors, dict) and set(vectors) == {""} else vectors
        )
    return shown


def scored(found: Any, payload: bool) -> dict[str, Any]:
    """A hit as the API shows it."""
    shown = {"id": _id(found.id), "version": found.version, "score": found.score}
    return shown | ({"payload": found.payload} if payload else {})


def condition(spec: dict[str, Any] | None) -> edge.Filter | None:
    """A filter: must, should, must_not over match, range and has_id."""
    if not spec:
        return None
    parts: dict[str, Any] = {
        kind: [_condition(c) for c in spec[kind]]
        for kind in ("must", "should", "must_not")
        if spec.get(kind)
    }
    return edge.Filter(**parts)


def _condition(spec: dict[str, Any]) -> Any:
    if "has_id" in spec:
        return edge.HasIdCondition(set(spec["has_id"]))
    if "match" in spec:
        match = spec["match"]
        if "value" in match:
            return edge.FieldCondition(spec["key"], match=edge.MatchValue(match["value"]))
        if "any" in match:
            return edge.FieldCondition(spec["key"], match=edge.MatchAny(match["any"]))
    if "range" in spec:
        return edge.FieldCondition(spec["key"], range=edge.RangeFloat(**spec["range"]))
    raise Refused(400, f"Format error in JSON body: this double knows no condition {sorted(spec)}")


def _id(point: Any) -> int | str:
    return point if isinstance(point, int) else str(point)
