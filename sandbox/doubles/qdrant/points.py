"""JSON of the API ↔ objects of qdrant-edge."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any
from uuid import UUID

import qdrant_edge as edge

from sandbox.doubles.qdrant.errors import Refused, malformed, understanding

DISTANCES = {
    "Cosine": edge.Distance.Cosine,
    "Dot": edge.Distance.Dot,
    "Euclid": edge.Distance.Euclid,
    "Manhattan": edge.Distance.Manhattan,
}


SIZE_AT_MOST = 65_536  # as the real server


def config(vectors: dict[str, Any]) -> edge.EdgeConfig:
    """The engine's configuration for a collection's `vectors`: one unnamed, or several by name."""
    with understanding():
        named = {"": vectors} if "size" in vectors else vectors
        for v in named.values():
            if v["distance"] not in DISTANCES:
                raise malformed(f"vectors: unknown variant `{v['distance']}`")
            if not 0 < int(v["size"]) <= SIZE_AT_MOST:
                text = (
                    f"[vectors.size: value {v['size']} invalid, must be from 1 to {SIZE_AT_MOST}]"
                )
                raise Refused(422, f"Validation error in JSON body: {text}")
        params = {
            name: edge.EdgeVectorParams(int(v["size"]), DISTANCES[v["distance"]])
            for name, v in named.items()
        }
        return edge.EdgeConfig(vectors=params)


def nearer_is_less(vectors: dict[str, Any], using: str) -> bool:
    """Whether the best hits have the lowest scores."""
    params = vectors if "size" in vectors else vectors.get(using or "", {})
    return params.get("distance") in ("Euclid", "Manhattan")


def identity(given: Any) -> int | str:
    """A point's id in its canonical form, so that a point always goes to the same shard."""
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 1 << 64:
        return given
    if isinstance(given, str):
        with contextlib.suppress(ValueError):
            return str(UUID(given))
    text = f"value {given} is not a valid point ID, valid values are either an unsigned integer or a UUID"
    raise malformed(text)


def shard_of(point: int | str, shards: int) -> int:
    """The shard of a point: stable and evenly distributed."""
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


def scored(found: Any, payload: bool, vector: bool) -> dict[str, Any]:
    """A hit as the API shows it."""
    return record(found, payload, vector) | {"version": found.version, "score": found.score}


def condition(spec: dict[str, Any] | None) -> edge.Filter | None:
    """A filter: must, should, must_not over match, range and has_id."""
    if not spec:
        return None
    if unknown := set(spec) - {"must", "should", "must_not"}:
        raise malformed(f"filter: unknown field {sorted(unknown)}")
    parts: dict[str, Any] = {}
    for kind, given in spec.items():
        conditions = given if isinstance(given, list) else [given]
        if given:
            parts[kind] = [_condition(c) for c in conditions]
    return edge.Filter(**parts)


def _condition(spec: dict[str, Any]) -> Any:
    if not set(spec) - {"must", "should", "must_not"}:
        return condition(spec)
    if "has_id" in spec:
        return edge.HasIdCondition({identity(i) for i in spec["has_id"]})
    if "match" in spec:
        match = spec["match"]
        if "value" in match:
            return edge.FieldCondition(spec["key"], match=edge.MatchValue(match["value"]))
        if "any" in match:
            return edge.FieldCondition(spec["key"], match=edge.MatchAny(match["any"]))
    if "range" in spec:
        return edge.FieldCondition(spec["key"], range=edge.RangeFloat(**spec["range"]))
    raise malformed(f"this double knows no condition {sorted(spec)}")


def _id(point: Any) -> int | str:
    return point if isinstance(point, int) else str(point)
