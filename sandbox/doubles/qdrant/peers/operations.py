"""Runs operations and queries from other peers on a replica."""

from __future__ import annotations

from typing import Any

import qdrant_edge as edge

from sandbox.doubles.qdrant import points
from sandbox.doubles.qdrant.errors import Refused, malformed, understanding
from sandbox.doubles.qdrant.shards import Shard

SCHEMAS = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
    "bool": edge.PayloadSchemaType.Bool,
    "text": edge.PayloadSchemaType.Text,
    "datetime": edge.PayloadSchemaType.Datetime,
    "geo": edge.PayloadSchemaType.Geo,
    "uuid": edge.PayloadSchemaType.Uuid,
}


def apply(shard: Shard, operation: dict[str, Any]) -> None:
    """Run an update: {"upsert": points}, {"delete": ids}, {"delete_by": filter} or {"index": …}."""
    with understanding():
        update = _update(operation)
    shard.update(update)


def _update(operation: dict[str, Any]) -> edge.UpdateOperation:
    update = edge.UpdateOperation
    (kind, value), *_ = operation.items()
    match kind:
        case "upsert":
            return points.upsert(value)
        case "delete":
            return update.delete_points(value)
        case "delete_by":
            return update.delete_points_by_filter(points.condition(value) or edge.Filter())
        case "index":
            return update.create_field_index(value["field_name"], SCHEMAS[schema(value)])
    raise Refused(400, f"this double knows no operation {kind}")


def schema(index: dict[str, Any]) -> str:
    """The kind of an index, from a word or an object."""
    with understanding():
        given = index["field_schema"]
        name = given if isinstance(given, str) else str(given["type"])
        if not isinstance(index["field_name"], str):
            raise malformed("field_name: invalid type, expected a string")
    if name not in SCHEMAS:
        raise malformed(f"unknown field schema `{name}`")
    return name


def ask(shard: Shard, question: dict[str, Any]) -> Any:
    """Answer a query: {"count": …}, {"scroll": …}, {"query": …}, {"retrieve": …}."""
    (kind, spec), *_ = question.items()
    match kind:
        case "count":
            with understanding():
                count = edge.CountRequest(exact=True, filter=points.condition(spec.get("filter")))
            return shard.ask(lambda engine: engine.count(count))
        case "scroll":
            with understanding():
                scroll = edge.ScrollRequest(
                    offset=spec.get("offset"),
                    limit=limit_of(spec) + 1,
                    filter=points.condition(spec.get("filter")),
                    with_payload=True,
                    with_vector=True,
                )
            found, _ = shard.ask(lambda engine: engine.scroll(scroll))
            return [points.record(p, True, True) for p in found]
        case "query":
            with understanding():
                query = edge.QueryRequest(
                    limit=limit_of(spec),
                    query=edge.Query.Nearest(spec["query"], using=spec.get("using")),
                    filter=points.condition(spec.get("filter")),
                    with_payload=True,
                    with_vector=True,
                )
            found = shard.ask(lambda engine: engine.query(query))
            return [points.scored(p, True, True) for p in found]
        case "retrieve":
            found = shard.ask(lambda engine: engine.retrieve(spec, True, True))
            return [points.record(p, True, True) for p in found]
    raise Refused(400, f"this double knows no question {kind}")


def limit_of(spec: dict[str, Any]) -> int:
    """The number of requested points."""
    limit = spec.get("limit")
    if limit is None:
        return 10
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise malformed(f"limit: invalid type: `{limit}`, expected usize")
    if not 1 <= limit < 1 << 32:
        text = f"[limit: value {limit} invalid, must be 1 or larger]"
        raise Refused(422, f"Validation error in JSON body: {text}")
    return limit
