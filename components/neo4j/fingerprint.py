"""What a graph holds: nodes by their labels, relationships by type, each counted and digested; indexes and constraints.

A node counts as its labels and properties, a relationship as its type, properties and both ends as nodes: Neo4j's own
ids are others after a restore. Read before the backup and after it; what moved meanwhile is counted only.

Temporal values and points are digested as the server writes them, with their type: the driver has no object for years
before 1 and after 9999, loses the seconds of an offset, and compares points without their reference system. Other
values come over Bolt as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import neo4j

from archive.manifest import Manifest, Measure
from calls import call
from components.access import Access, Endpoint
from components.digest import Digest
from components.neo4j.client import LABEL, driver_of, query

FETCH = 2000
USERS = "SHOW USERS YIELD user, suspended"
# https://neo4j.com/docs/cypher-manual/current/values-and-types/property-structural-constructed/#_property_types: all
# property types that JSON has no form for, but byte arrays. A list holds values of one type.
TEXTUAL = " | ".join(
    f"{kind} NOT NULL"
    for kind in (
        "DATE", "LOCAL TIME", "ZONED TIME", "LOCAL DATETIME", "ZONED DATETIME", "DURATION", "POINT",
    )
)  # fmt: skip
NODES = f"MATCH (n) WHERE NOT n:{LABEL} WITH labels(n) AS labels, properties(n) AS p RETURN labels, %s AS properties"
RELATIONSHIPS = f"""
    MATCH (a)-[r]->(b) WHERE NOT a:{LABEL} AND NOT b:{LABEL}
    WITH type(r) AS type, properties(r) AS r, labels(a) AS from_labels, properties(a) AS a,
         labels(b) AS to_labels, properties(b) AS b
    RETURN type, %s AS properties, from_labels, %s AS from_properties, to_labels, %s AS to_properties
"""
CONSTRAINTS = "SHOW CONSTRAINTS YIELD name, type, entityType, labelsOrTypes, properties"
INDEXES = "SHOW INDEXES YIELD name, type, entityType, labelsOrTypes, properties, owningConstraint"


def _typed(properties: str) -> str:
    """Cypher for a map's pairs, whose temporal values and points are maps of type and text: no property is a map."""
    return f"""[k IN keys({properties}) | [k, CASE
        WHEN {properties}[k] IS :: {TEXTUAL}
            THEN {{type: valueType({properties}[k]), text: toString({properties}[k])}}
        WHEN {properties}[k] IS :: LIST<ANY> AND head({properties}[k]) IS :: {TEXTUAL}
            THEN {{type: valueType({properties}[k]), text: toStringList({properties}[k])}}
        ELSE {properties}[k] END]]"""


def _values(properties: list[tuple[str, Any]]) -> dict[str, Any]:
    """Properties as JSON has them; bytes are told from the list of the same numbers."""
    return {
        key: {"type": "BYTES", "text": value.hex()} if isinstance(value, bytes) else value
        for key, value in properties
    }


def _as_the_client_prints(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Properties as sets of version 1 digested them: of what JSON has no form for, the text of the driver's object."""
    found: dict[str, Any] = json.loads(json.dumps(properties, default=str))
    return found


@dataclass(frozen=True)
class Form:
    """How a graph is digested; a set is compared in its own version's.

    Attributes:
        version: as the manifest has it.
        nodes, relationships, constraints, indexes: queries.
        values: makes JSON of the properties that the first two give.
    """

    version: int
    nodes: str
    relationships: str
    constraints: str
    indexes: str
    values: Callable[[Any], dict[str, Any]]


FORMS = {
    form.version: form
    for form in (
        Form(1, NODES % "p", RELATIONSHIPS % ("r", "a", "b"), CONSTRAINTS, INDEXES, _as_the_client_prints),
        Form(
            2,
            NODES % _typed("p"),
            RELATIONSHIPS % (_typed("r"), _typed("a"), _typed("b")),
            f"{CONSTRAINTS}, propertyType, options",
            f"{INDEXES}, options",
            _values,
        ),
    )
}  # fmt: skip
ACCOUNTS = "users"  # unit of the server's accounts
NEWEST = FORMS[max(FORMS)]
VERSION = "fingerprint"  # its place in a manifest's topology; sets of version 1 have none


def form_of(manifest: Manifest) -> Form:
    """How the fingerprint of a set was made."""
    return FORMS[int(manifest.topology.get(VERSION, 1))]


def measure_database(
    access: Access, member: Endpoint, database: str, form: Form = NEWEST
) -> list[Measure]:
    """Measure one database.

    Args:
        access: the way in.
        member: that has a copy of it.
        database: its name.
        form: of the set that it is compared with.
    """
    with (
        call(f"Neo4j {member.member}: measure database {database}"),
        driver_of(access, member) as driver,
        driver.session(
            database=database, default_access_mode=neo4j.READ_ACCESS, fetch_size=FETCH
        ) as session,
    ):
        return measure_graph(session, f"database {database}", form)


def measure_graph(session: neo4j.Session, unit: str, form: Form = NEWEST) -> list[Measure]:
    """Measure the database of a session.

    Args:
        session: that may read it.
        unit: name of the database in the manifest.
        form: of the set that it is compared with.
    """
    sums: dict[str, Digest] = {}
    for row in _rows(session, form.nodes):
        labels = sorted(row["labels"])
        item = f"nodes {':'.join(labels) or 'without a label'}"
        document = (labels, form.values(row["properties"]))
        sums.setdefault(item, Digest()).add_document(document)
    for row in _rows(session, form.relationships):
        ends = (
            sorted(row["from_labels"]),
            form.values(row["from_properties"]),
            sorted(row["to_labels"]),
            form.values(row["to_properties"]),
        )
        item = f"relationships {row['type']}"
        sums.setdefault(item, Digest()).add_document(
            (row["type"], form.values(row["properties"]), *ends)
        )
    for item, text in (("constraints", form.constraints), ("indexes", form.indexes)):
        found = sums.setdefault(item, Digest())
        for row in _rows(session, text):
            found.add_document((row,), str(row["name"]))
    return [found.measure(unit, item) for item, found in sorted(sums.items())]


def measure_users(access: Access, member: Endpoint) -> Measure:
    """Count and digest the users; passwords cannot be asked for."""
    found = Digest()
    for row in query(access, member, USERS):
        found.add_document((row["user"], row["suspended"]), str(row["user"]))
    return found.measure(ACCOUNTS, "users")


def _rows(session: neo4j.Session, text: str) -> Iterator[dict[str, Any]]:
    for record in session.run(text):
        yield dict(record)
