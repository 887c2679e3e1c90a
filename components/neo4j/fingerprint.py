"""The fingerprint of a graph: nodes by labels and relationships by type, counted and digested; indexes, constraints.

A node is digested by its labels and properties; a relationship by its type, its properties, and the labels and small
properties of both ends. Neo4j's own ids cannot be used, because a restore changes them. The graph is measured before
and after the backup; what changed in between is only counted.

Temporal values and points are digested as the server's text, with their type. The driver has no objects for years
before 1 or after 9999, loses the seconds of an offset, and compares points without their reference system. All other
values are digested as they come over Bolt.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import neo4j

from archive.backup.manifest import Manifest, Measure
from archive.backup.names import ITEM_CHARACTERS, short_name
from calls import call
from components.access import Access, Endpoint
from components.digest import Digest
from components.neo4j.client import LABEL, driver_of, query, unless_silent

FETCH = 500  # rows that the driver buffers: a node with long texts may have megabytes
SILENT_SECONDS = 600.0  # limit before the first row and between two rows: a cold database is slow
# Twenty labels have a million combinations, and a manifest may have two million values for all databases.
GROUPS = 1_000
GROUP_CHARACTERS = 300
USERS = "SHOW USERS YIELD user, suspended"
# All property types that JSON cannot express, except byte arrays. A list has values of one type.
# https://neo4j.com/docs/cypher-manual/current/values-and-types/property-structural-constructed/#_property_types
TEXTUAL = " | ".join(
    f"{kind} NOT NULL"
    for kind in (
        "DATE", "LOCAL TIME", "ZONED TIME", "LOCAL DATETIME", "ZONED DATETIME", "DURATION", "POINT",
    )
)  # fmt: skip
NODES = f"MATCH (n) WHERE NOT n:{LABEL} WITH labels(n) AS labels, properties(n) AS p RETURN labels, %s AS properties"
# A relationship is identified by the labels and small properties of the nodes at its ends. Large properties would be
# sent with every relationship, for example an embedding of 1536 numbers thousands of times. They are digested with the
# node.
END_CHARACTERS = 100
SMALL = " | ".join(f"{kind} NOT NULL" for kind in ("BOOLEAN", "INTEGER", "FLOAT"))
RELATIONSHIPS = f"""
    MATCH (a)-[r]->(b) WHERE NOT a:{LABEL} AND NOT b:{LABEL}
    WITH type(r) AS type, properties(r) AS r, labels(a) AS from_labels, properties(a) AS a,
         labels(b) AS to_labels, properties(b) AS b
    RETURN type, %s AS properties, from_labels, %s AS from_properties, to_labels, %s AS to_properties
"""
CONSTRAINTS = "SHOW CONSTRAINTS YIELD name, type, entityType, labelsOrTypes, properties"
INDEXES = "SHOW INDEXES YIELD name, type, entityType, labelsOrTypes, properties, owningConstraint"


def _typed(properties: str, which: str = "") -> str:
    """Cypher for the pairs of a map. Temporal values and points become maps of type and text; no property is a map."""
    return f"""[k IN keys({properties}) {which} | [k, CASE
        WHEN {properties}[k] IS :: {TEXTUAL}
            THEN {{type: valueType({properties}[k]), text: toString({properties}[k])}}
        WHEN {properties}[k] IS :: LIST<ANY> AND head({properties}[k]) IS :: {TEXTUAL}
            THEN {{type: valueType({properties}[k]), text: toStringList({properties}[k])}}
        ELSE {properties}[k] END]]"""


def _small(properties: str) -> str:
    """Cypher for the small pairs of a map: no lists, no long texts."""
    value = f"{properties}[k]"
    short = f"{value} IS :: STRING NOT NULL AND size({value}) <= {END_CHARACTERS}"
    return _typed(properties, f"WHERE {value} IS :: {SMALL} | {TEXTUAL} OR ({short})")


def _values(properties: list[tuple[str, Any]]) -> dict[str, Any]:
    """Properties as JSON. Bytes are marked, so that they differ from a list of the same numbers."""
    return {
        key: {"type": "BYTES", "text": value.hex()} if isinstance(value, bytes) else value
        for key, value in properties
    }


def _as_the_client_prints(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Properties as version 1 digested them: the text of the driver's object for types that JSON lacks."""
    document: dict[str, Any] = json.loads(json.dumps(properties, default=str))
    return document


@dataclass(frozen=True)
class Form:
    """How a graph is digested. A backup is compared in the form that it was measured in.

    Attributes:
        version: its number in the manifest.
        nodes, relationships, constraints, indexes: queries.
        values: turns the properties of the first two queries into JSON.
        groups: number of label combinations, and of relationship types, with a measure of their own; None: all.
        characters: length of an item's name; longer names are shortened.
    """

    version: int
    nodes: str
    relationships: str
    constraints: str
    indexes: str
    values: Callable[[Any], dict[str, Any]]
    groups: int | None = None
    characters: int = ITEM_CHARACTERS

    def group(self, kind: str, name: str) -> str:
        """Name of an item."""
        return short_name(f"{kind} {name}", self.characters)


SECOND = Form(
    2,
    NODES % _typed("p"),
    RELATIONSHIPS % (_typed("r"), _typed("a"), _typed("b")),
    f"{CONSTRAINTS}, propertyType, options",
    f"{INDEXES}, options",
    _values,
)
THIRD = replace(SECOND, version=3, groups=GROUPS, characters=GROUP_CHARACTERS)
FORMS = {
    form.version: form
    for form in (
        Form(1, NODES % "p", RELATIONSHIPS % ("r", "a", "b"), CONSTRAINTS, INDEXES, _as_the_client_prints),
        SECOND,
        THIRD,
        replace(THIRD, version=4, relationships=RELATIONSHIPS % (_typed("r"), _small("a"), _small("b"))),
    )
}  # fmt: skip
ACCOUNTS = "users"  # unit of the server's accounts
NEWEST = FORMS[max(FORMS)]
VERSION = "fingerprint"  # key in a manifest's topology; backups of version 1 lack it


def form_of(manifest: Manifest) -> Form:
    """The form in which a backup was measured."""
    return FORMS[int(manifest.topology.get(VERSION, 1))]


def measure_database(
    access: Access, member: Endpoint, database: str, form: Form = NEWEST
) -> list[Measure]:
    """Measure one database.

    Args:
        access: addresses and credentials.
        member: a member with a copy of the database.
        database: its name.
        form: the form of the backup that it is compared with.
    """
    with (
        call(f"Neo4j {member.member}: measure database {database}"),
        driver_of(access, member) as driver,
        unless_silent(driver, member, SILENT_SECONDS) as heard,
        driver.session(
            database=database, default_access_mode=neo4j.READ_ACCESS, fetch_size=FETCH
        ) as session,
    ):
        return measure_graph(session, f"database {database}", form, heard)


def measure_graph(
    session: neo4j.Session,
    unit: str,
    form: Form = NEWEST,
    heard: Callable[[], None] = lambda: None,
) -> list[Measure]:
    """Measure the database of a session.

    Args:
        session: a session of the database.
        unit: name of the database in the manifest.
        form: the form of the backup that it is compared with.
        heard: called for each row.
    """
    nodes = Groups("nodes of other labels", form.groups)
    for row in _rows(session, form.nodes, heard):
        labels = sorted(row["labels"])
        item = form.group("nodes", ":".join(labels) or "without a label")
        nodes.of(item).add_document((labels, form.values(row["properties"])))
    relationships = Groups("relationships of other types", form.groups)
    for row in _rows(session, form.relationships, heard):
        ends = (
            sorted(row["from_labels"]),
            form.values(row["from_properties"]),
            sorted(row["to_labels"]),
            form.values(row["to_properties"]),
        )
        item = form.group("relationships", row["type"])
        relationships.of(item).add_document((row["type"], form.values(row["properties"]), *ends))
    sums = {**nodes.digests, **relationships.digests}
    for item, text in (("constraints", form.constraints), ("indexes", form.indexes)):
        digest = sums.setdefault(item, Digest())
        for row in _rows(session, text, heard):
            digest.add_document((row,), str(row["name"]))
    return [digest.measure(unit, item) for item, digest in sorted(sums.items())]


class Groups:
    """Digests by group, for a limited number of groups: the alphabetically first names, and one group for all others.

    The result does not depend on the order of the rows.

    Args:
        others: name of the group for all others.
        most: number of groups with a digest of their own; None: all.
    """

    def __init__(self, others: str, most: int | None) -> None:
        self._others, self._most = others, most
        self._digests: dict[str, Digest] = {}
        self._names: list[str] = []  # sorted
        self._rest = Digest()

    @property
    def digests(self) -> dict[str, Digest]:
        """Digest by name."""
        rest = {self._others: self._rest} if self._rest.count else {}
        return {**self._digests, **rest}

    def of(self, name: str) -> Digest:
        """The digest to which a group's items are added."""
        digest = self._digests.get(name)
        if digest is not None:
            return digest
        full = self._most is not None and len(self._names) >= self._most
        if full and name > self._names[-1]:
            return self._rest
        if full:
            self._rest.add_all(self._digests.pop(self._names.pop()))
        self._names.insert(bisect_left(self._names, name), name)
        return self._digests.setdefault(name, Digest())


def measure_users(access: Access, member: Endpoint) -> Measure:
    """Count and digest the users. Passwords cannot be read."""
    digest = Digest()
    for row in query(access, member, USERS):
        digest.add_document((row["user"], row["suspended"]), str(row["user"]))
    return digest.measure(ACCOUNTS, "users")


def _rows(session: neo4j.Session, text: str, heard: Callable[[], None]) -> Iterator[dict[str, Any]]:
    for record in session.run(text):
        heard()
        yield dict(record)
