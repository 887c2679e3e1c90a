"""A set is compared by what its own fingerprint knows: one from before grants were measured stays provable."""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import Any, cast

import psycopg

from archive.backup.manifest import Measure
from components.postgresql.client import SCHEMA
from components.postgresql.fingerprint import items_of, measure_database, measure_original
from components.postgresql.measures.definitions import CATALOGUES, DEFINITIONS, EARLIER

OLDER = ("relations and owners", "columns", "functions")


class Database:
    """Answers every question with one thing, and has one table."""

    def __init__(self, *, made_anew: bool = False, computed: bool = False, plans: bool = False):
        self.table = (7, "shop", "sales", made_anew, ["id"], ["id"], computed, plans, None)
        self.plans = plans
        self.copied: list[str] = []

    def execute(self, query: Any, parameters: Any = None) -> Any:
        raw = query.decode() if isinstance(query, bytes) else query
        text = raw if isinstance(raw, str) else raw.as_string(None)
        rows: list[tuple[Any, ...]] = [(1, "12", "12")]
        if parameters == [SCHEMA]:
            rows = [self.table]
        elif parameters == [7]:
            rows = [(self.plans,)]
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

    def transaction(self) -> Any:
        return nullcontext()

    def cursor(self) -> Any:
        return nullcontext(self)

    def copy(self, text: Any) -> Any:
        self.copied.append(text.as_string(None))
        return nullcontext([b"1\n", b"2\n"])


def original(database: Database, *, still: bool = True) -> list[str]:
    connection = cast("psycopg.Connection[Any]", database)
    found = measure_original(
        connection, "isa", still=still, failed=lambda *_: None, dropped=lambda _: None
    )
    return [one.item for one in found]


def restored(database: Database, *items: str) -> dict[str, Measure]:
    connection = cast("psycopg.Connection[Any]", database)
    return {one.item: one for one in measure_database(connection, "isa", items)}


def test_rows_of_a_materialized_view_are_compared_where_a_set_measured_them() -> None:
    view = Database(made_anew=True)
    assert list(restored(view, "views", "table shop.sales")) == ["table shop.sales", "views"]
    assert list(restored(view, "views")) == ["views"]
    assert original(view) == [*CATALOGUES, *DEFINITIONS]


def test_an_older_set_is_measured_by_what_it_knows_and_a_new_one_by_all() -> None:
    older = [
        Measure(unit="database isa", item=item, count=1, digest="c/c", origin="source")
        for item in (*OLDER, "table shop.sales")
    ]
    known = items_of(older, "database isa")
    assert set(restored(Database(), *known)) == {*OLDER, "table shop.sales"}
    assert items_of(older, "database another") == set()
    assert original(Database()) == ["table shop.sales", *CATALOGUES, *DEFINITIONS]
    assert not (CATALOGUES.keys() | DEFINITIONS.keys()) & EARLIER.keys()


def test_no_query_is_planned_on_a_table_whose_owner_s_code_that_would_run() -> None:
    for database, still in (
        (Database(plans=True), True),
        (Database(computed=True), True),
        (Database(), False),
    ):
        assert "rows of shop.sales" in original(database, still=still)
        assert database.copied == ['COPY "shop"."sales" ("id") TO STDOUT (ENCODING \'SQL_ASCII\')']
    older = restored(Database(plans=True), "table shop.sales")["table shop.sales"]
    assert (older.count, older.until, older.digest) == (2, 2, "")


def test_a_table_that_a_set_could_not_measure_is_not_one_too_many() -> None:
    assert restored(Database(), "unmeasured table shop.sales") == {}
    assert list(restored(Database(), "rows of another.table")) == ["rows of shop.sales"]
