"""What a graph holds: nodes by their labels, relationships by type, each counted and digested; indexes and constraints.

A node counts as its labels and properties, a relationship as its type, properties and both ends as nodes: Neo4j's own
ids are others after a restore. Read before the backup and after it; what moved meanwhile is counted only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import neo4j

from archive.manifest import Measure
from components.access import Access, Endpoint
from components.digest import Digest
from components.neo4j.client import LABEL, driver_of, query

FETCH = 2000
NODES = f"MATCH (n) WHERE NOT n:{LABEL} RETURN labels(n) AS labels, properties(n) AS properties"
RELATIONSHIPS = f"""
    MATCH (a)-[r]->(b) WHERE NOT a:{LABEL} AND NOT b:{LABEL}
    RETURN type(r) AS type, properties(r) AS properties, labels(a) AS from_labels, properties(a) AS from_properties,
           labels(b) AS to_labels, properties(b) AS to_properties
"""
CONSTRAINTS = "SHOW CONSTRAINTS YIELD name, type, entityType, labelsOrTypes, properties"
INDEXES = "SHOW INDEXES YIELD name, type, entityType, labelsOrTypes, properties, owningConstraint"

USERS = "SHOW USERS YIELD user, suspended"


def measure_database(access: Access, member: Endpoint, database: str) -> list[Measure]:
    """Measure one database.

    Args:
        access: the way in.
        member: that has a copy of it.
        database: its name.
    """
    sums: dict[str, Digest] = {}
    with (
        driver_of(access, member) as driver,
        driver.session(
            database=database, default_access_mode=neo4j.READ_ACCESS, fetch_size=FETCH
        ) as session,
    ):
        for row in _rows(session, NODES):
            labels = sorted(row["labels"])
            item = f"nodes {':'.join(labels) or 'without a label'}"
            sums.setdefault(item, Digest()).add_document((labels, row["properties"]))
        for row in _rows(session, RELATIONSHIPS):
            ends = (
                sorted(row["from_labels"]),
                row["from_properties"],
                sorted(row["to_labels"]),
                row["to_properties"],
            )
            item = f"relationships {row['type']}"
            document = (row["type"], row["properties"], *ends)
            sums.setdefault(item, Digest()).add_document(document)
        for item, text in (("constraints", CONSTRAINTS), ("indexes", INDEXES)):
            found = sums.setdefault(item, Digest())
            for row in _rows(session, text):
                found.add_document((row,), str(row["name"]))
    unit = f"database {database}"
    return [found.measure(unit, item) for item, found in sorted(sums.items())]


def measure_users(access: Access, member: Endpoint) -> Measure:
    """Count and digest the users; passwords cannot be asked for."""
    found = Digest()
    for row in query(access, member, USERS):
        found.add_document((row["user"], row["suspended"]), str(row["user"]))
    return found.measure("users", "users")


def _rows(session: neo4j.Session, text: str) -> Iterator[dict[str, Any]]:
    for record in session.run(text):
        yield dict(record)
