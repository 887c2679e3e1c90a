"""A set is compared by what its own fingerprint knows: one from before grants were measured stays provable."""

from __future__ import annotations

import re
from typing import Any, cast

import psycopg

from archive.manifest import Measure
from components.postgresql.definitions import CATALOGUES, DEFINITIONS, EARLIER
from components.postgresql.fingerprint import items_of, measure_database

OLDER = ("relations and owners", "columns", "functions")


class Database:
    """Answers every question with one thing, and has a view whose rows are kept."""

    def execute(self, query: Any, parameters: Any = None) -> Any:
        raw = query.decode() if isinstance(query, bytes) else query
        text = raw if isinstance(raw, str) else raw.as_string(None)
        rows: list[tuple[Any, ...]] = [(1, "12", "12")]
        if parameters is not None:
            rows = [("shop", "sales", True, ["id"])]
        elif re.match(r"SELECT name, to_hex", text):
            rows = [("a thing", "c")]
        elif re.match(r"\s+SELECT (?:format|name|p\.oid)", text):
            rows = [("a thing", "its definition")]
        self.rows = rows
        return self

    def fetchone(self) -> Any:
        return self.rows[0]

    def fetchall(self) -> Any:
        return self.rows


def measured(*items: str) -> list[str]:
    connection = cast("psycopg.Connection[Any]", Database())
    found = (
        measure_database(connection, "isa", items) if items else measure_database(connection, "isa")
    )
    return [one.item for one in found]


def test_rows_of_a_materialized_view_are_compared_where_a_set_measured_them() -> None:
    older = [
        Measure(unit="database isa", item=item, count=1, digest="c/c", origin="source")
        for item in ("views", "table shop.sales")
    ]
    assert measured(*items_of(older, "database isa")) == ["table shop.sales", "views"]


def test_an_older_set_is_measured_by_what_it_knows_and_a_new_one_by_all() -> None:
    older = [
        Measure(unit="database isa", item=item, count=1, digest="c/c", origin="source")
        for item in (*OLDER, "table shop.customer")
    ]
    assert set(measured(*items_of(older, "database isa"))) == set(OLDER)
    assert items_of(older, "database another") == set()
    assert measured() == [*CATALOGUES, *DEFINITIONS]
    assert not (CATALOGUES.keys() | DEFINITIONS.keys()) & EARLIER.keys()
