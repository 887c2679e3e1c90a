"""What a graph holds: nodes by their labels, relationships by type, each counted and digested; indexes and constraints.

A node counts as its labels and properties, a relationship as its type, properties and both ends as nodes: Neo4j's own
ids are others after a restore. Read before the backup and after it; what moved meanwhile is counted only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import neo4j

from archive.manifest import Measure
from components.access import Access, Endpoint
from components.neo4j.client import LABEL, driver_of

MASK = (1 << 128) - 1
FETCH = 2000
NODES = f"MATCH (n) WHERE NOT n:{LABEL} RETURN labels(n) AS labels, properties(n) AS properties"
RELATIONSHIPS = f"""
    MATCH (a)-[r]->(b) WHERE NOT a:{LABEL} AND NOT b:{LABEL}
    RETURN type(r) AS type, properties(r) AS properties, labels(a) AS from_labels, properties(a) AS from_properties,
           labels(b) AS to_labels, properties(b) AS to_properties
"""
CONSTRAINTS = "SHOW CONSTRAINTS YIELD name, type, entityType, labelsOrTypes, properties"
INDEXES = "SHOW INDEXES YIELD name, type, entityType, labelsOrTypes, properties, owningConstraint"


class _Sum:
    def __init__(self) -> None:
        self.count = self.total = self.crossed = 0

    def add(self, *parts: Any) -> None:
        text = json.dumps(parts, sort_keys=True, default=str).encode()
        number = int.from_bytes(blake2b(text, digest_size=16).digest(), "big")
        self.count += 1
        self.total = (self.total + number) & MASK
        self.crossed ^= number


def measure_database(access: Access, member: Endpoint, database: str) -> list[Measure]:
    """Measure one database.

    Args:
        access: the way in.
        member: that has a copy of it.
        database: its name.
    """
    sums: dict[str, _Sum] = {}
    with (
        driver_of(access, member) as driver,
        driver.session(
            database=database, default_access_mode=neo4j.READ_ACCESS, fetch_size=FETCH
        ) as session,
    ):
        for row in _rows(session, NODES):
            labels = sorted(row["labels"])
            sums.setdefault(f"nodes {':'.join(labels) or 'without a label'}", _Sum()).add(
                labels, row["properties"]
            )
        for row in _rows(session, RELATIONSHIPS):
            ends = (
                sorted(row["from_labels"]),
                row["from_properties"],
                sorted(row["to_labels"]),
                row["to_properties"],
            )
            item = f"relationships {row['type']}"
            sums.setdefault(item, _Sum()).add(row["type"], row["properties"], *ends)
        for item, text in (("constraints", CONSTRAINTS), ("indexes", INDEXES)):
            found = sums.setdefault(item, _Sum())
            for row in _rows(session, text):
                found.add(row)
    return [
        Measure(
            unit=f"database {database}",
            item=item,
            count=one.count,
            digest=f"{one.total:032x}/{one.crossed:032x}" if one.count else "",
            origin="source",
        )
        for item, one in sorted(sums.items())
    ]


def settled(before: list[Measure], after: list[Measure]) -> list[Measure]:
    """The measures before; without digest where those after differ."""
    later = {(one.unit, one.item): one for one in after}
    return [
        one if later.get((one.unit, one.item)) == one else one.model_copy(update={"digest": ""})
        for one in before
    ]


def _rows(session: neo4j.Session, text: str) -> Iterator[dict[str, Any]]:
    for record in session.run(text):
        yield dict(record)
