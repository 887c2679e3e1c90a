"""Operations and questions as peers send them to one another, carried out on a replica."""

from __future__ import annotations

from typing import Any

import qdrant_edge as edge

from deployments.sandbox.doubles.qdrant import points
from deployments.sandbox.doubles.qdrant.errors import Refused
from deployments.sandbox.doubles.qdrant.shards import Shard

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
    """Carry out an update: {"upsert": points}, {"delete": ids}, {"delete_by": filter} or {"index": …}."""
    (kind, value), *_ = operation.items()
    update = edge.UpdateOperation
    match kind:
        case "upsert":
            shard.update(points.upsert(value))
        case "delete":
            shard.update(update.delete_points(value))
        case "delete_by":
            shard.update(update.delete_points_by_filter(points.condition(value) or edge.Filter()))
        case "index":
            schema = value["field_schema"]
            name = schema if isinstance(schema, str) else str(schema.get("type"))
            if name not in SCHEMAS:
                raise Refused(400, f"Format error in JSON body: unknown field schema `{name}`")
            shard.update(update.create_field_index(value["field_name"], SCHEMAS[name]))
        case _:
            raise Refused(400, f"this double knows no operation {kind}")


def ask(shard: Shard, question: dict[str, Any]) -> Any:
    """Answer a question: {"count": …}, {"scroll": …}, {"query": …}, {"retrieve": …}."""
    (kind, spec), *_ = question.items()
    match kind:
        case "count":
            request = edge.CountRequest(exact=True, filter=points.condition(spec.get("filter")))
            return shard.ask(lambda engine: engine.count(request))
        case "scroll":
            scroll = edge.ScrollRequest(
                offset=spec.get("offset"),
                limit=int(spec.get("limit") or 10) + 1,
                filter=points.condition(spec.get("filter")),
                with_payload=True,
                with_vector=True,
            )
            found, _ = shard.ask(lambda engine: engine.scroll(scroll))
            return [points.record(p, True, True) for p in found]
        case "query":
            query = edge.QueryRequest(
                limit=int(spec.get("limit") or 10),
                query=edge.Query.Nearest(spec["query"], using=spec.get("using")),
                filter=points.condition(spec.get("filter")),
                with_payload=True,
            )
            found = shard.ask(lambda engine: engine.query(query))
            return [points.scored(p, True) for p in found]
        case "retrieve":
            found = shard.ask(lambda engine: engine.retrieve(spec, True, True))
            return [points.record(p, True, True) for p in found]
        case _:
            raise Refused(400, f"this double knows no question {kind}")
