"""What of a dump may run code of an owner is restored with that owner's rights, and by no superuser."""

from __future__ import annotations

import pytest

from components.postgresql.dumps.foreign_objects import Objects, check_unchanged
from components.postgresql.dumps.rights import plan_runs
from components.postgresql.dumps.toc import DATA, POST_DATA, PRE_DATA, Entry
from errors import PermanentError

SUPERUSERS = {"postgres", "root"}
DOMAIN = Entry(1, "DOMAIN", PRE_DATA, "evil", "checked", "tenant", "CREATE DOMAIN evil.checked", ())
ENUM = Entry(2, "TYPE", PRE_DATA, "evil", "mood", "tenant", "CREATE TYPE evil.mood AS ENUM (", ())
RANGE = Entry(3, "TYPE", PRE_DATA, "evil", "span", "tenant", "CREATE TYPE evil.span AS RANGE (", ())


def entry(kind: str, definition: str = "", owner: str = "tenant", section: int = PRE_DATA) -> Entry:
    return Entry(9, kind, section, "evil", "thing", owner, definition, ())


def owner_of(one: Entry, *others: Entry) -> str:
    """With whose rights an entry is restored; "" is the superuser."""
    runs = plan_runs([*others, one], SUPERUSERS, "owner")
    return next(run.owner for run in runs if one.number in run.numbers)


@pytest.mark.parametrize(
    ("kind", "definition"),
    [
        ("TABLE DATA", ""),
        ("CHECK CONSTRAINT", "ALTER TABLE evil.thing ADD CONSTRAINT c CHECK (evil.f(thing.*))"),
        ("FK CONSTRAINT", "ALTER TABLE evil.thing ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES b"),
        ("TABLE", "CREATE TABLE evil.thing (n int GENERATED ALWAYS AS (evil.f(1)) STORED)"),
        ("TABLE", "CREATE TABLE evil.thing (n int) PARTITION BY LIST (evil.f(1))"),
        ("AGGREGATE", "CREATE AGGREGATE evil.thing(int) (SFUNC = f, INITCOND = '{1}')"),
        ("TABLE", "CREATE TABLE evil.thing (n evil.checked[] DEFAULT '{1}'::evil.checked[])"),
        ("VIEW", """CREATE VIEW evil.thing AS SELECT '{1}'::"evil"."checked"[]"""),
        ("INDEX", "CREATE INDEX thing ON evil.t (n) WHERE n <> '{1}'::evil.checked[]"),
        ("TRIGGER", "CREATE TRIGGER t BEFORE INSERT ON t WHEN (n <> '(1)'::evil.thing)"),
    ],
)
def test_what_may_run_an_owner_s_code_runs_with_his_rights(kind: str, definition: str) -> None:
    assert owner_of(entry(kind, definition), DOMAIN, RANGE) == "tenant"
    assert owner_of(entry(kind, definition, "root"), DOMAIN, RANGE) == ""
    assert owner_of(entry(kind, definition, "pg_database_owner"), DOMAIN, RANGE) == "owner"


@pytest.mark.parametrize(
    ("kind", "definition"),
    [
        ("SCHEMA", "CREATE SCHEMA evil"),
        ("FUNCTION", "CREATE FUNCTION evil.thing() RETURNS int LANGUAGE plpgsql AS 'x'"),
        ("TABLE", "CREATE TABLE evil.thing (id int GENERATED ALWAYS AS IDENTITY, n evil.checked)"),
        ("TABLE", "CREATE TABLE evil.thing (m evil.mood DEFAULT 'good'::evil.mood)"),
        ("TABLE", "CREATE TABLE evil.thing (m citext DEFAULT 'good'::public.citext)"),
        ("INDEX", "CREATE INDEX thing ON evil.t (evil.f(n))"),
        ("MATERIALIZED VIEW DATA", "REFRESH MATERIALIZED VIEW evil.thing"),
        ("SEQUENCE SET", "SELECT pg_catalog.setval('evil.s', 1)"),
    ],
)
def test_what_only_makes_something_is_restored_by_the_superuser(kind: str, definition: str) -> None:
    assert owner_of(entry(kind, definition), DOMAIN, ENUM) == ""


def test_a_constant_of_a_type_that_no_dump_names_may_be_of_an_owner_s_range() -> None:
    one = entry("TABLE", "CREATE TABLE evil.thing (r x DEFAULT '{[1,2)}'::evil.spanmultirange)")
    assert owner_of(one) == ""
    assert owner_of(one, RANGE) == "tenant"


def test_an_enum_may_be_another_type_once_an_owner_s_code_has_run() -> None:
    one = entry("VIEW", "CREATE VIEW evil.thing AS SELECT '{good}'::evil.mood[]")
    rows = Entry(7, "TABLE DATA", PRE_DATA, "evil", "rows", "tenant", "", ())
    assert owner_of(one, ENUM) == ""
    assert owner_of(one, ENUM, rows) == "tenant"


def test_a_partition_s_bound_belongs_to_the_owner_of_the_parent() -> None:
    parent = Entry(
        5, "TABLE", PRE_DATA, "a", "parent", "parent's", "CREATE TABLE a.parent (n int)", ()
    )
    typed = Entry(
        6, "TABLE", PRE_DATA, "a", "typed", "typed's", "CREATE TABLE a.typed (n evil.checked)", ()
    )
    attach = Entry(8, "TABLE ATTACH", PRE_DATA, "evil", "thing", "tenant", "ALTER TABLE …", (5,))
    assert owner_of(attach, DOMAIN, parent) == ""
    other = Entry(8, "TABLE ATTACH", PRE_DATA, "evil", "thing", "tenant", "ALTER TABLE …", (6,))
    assert owner_of(other, DOMAIN, typed) == "typed's"


def test_a_partition_is_attached_with_the_rights_of_whose_functions_are_in_the_key() -> None:
    text = "CREATE TABLE a.parent (n int) PARTITION BY LIST (((n + evil.f(1))))"
    parent = Entry(5, "TABLE", PRE_DATA, "a", "parent", "parent's", text, ())
    attach = Entry(8, "TABLE ATTACH", PRE_DATA, "evil", "thing", "tenant", "ALTER TABLE …", (5,))
    assert owner_of(attach, parent) == "parent's"


def test_order_stays_but_for_rows_and_for_constraints_that_rest_on_rows() -> None:
    generated = "GENERATED ALWAYS AS ("
    kinds = [
        ("FUNCTION", "a", PRE_DATA, ""), ("TABLE", "a", PRE_DATA, generated), ("ACL", "a", 1, ""),
        ("TABLE", "b", PRE_DATA, generated), ("TABLE", "a", PRE_DATA, generated),
        ("TABLE DATA", "a", DATA, ""), ("TABLE DATA", "b", DATA, ""), ("TABLE DATA", "a", DATA, ""),
        ("SEQUENCE SET", "a", DATA, ""), ("INDEX", "a", POST_DATA, ""),
        ("FK CONSTRAINT", "a", POST_DATA, ""), ("FK CONSTRAINT", "b", POST_DATA, ""),
        ("FK CONSTRAINT", "a", POST_DATA, ""), ("EVENT TRIGGER", "root", POST_DATA, ""),
    ]  # fmt: skip
    entries = [
        Entry(number, kind, section, "s", f"n{number}", owner, definition, ())
        for number, (kind, owner, section, definition) in enumerate(kinds)
    ]
    runs = plan_runs(entries, SUPERUSERS, "owner")
    assert [(run.owner, run.section, run.numbers) for run in runs] == [
        ("", PRE_DATA, (0,)),
        ("a", PRE_DATA, (1,)),
        ("", PRE_DATA, (2,)),
        ("b", PRE_DATA, (3,)),
        ("a", PRE_DATA, (4,)),
        ("", DATA, (8,)),
        ("a", DATA, (5, 7)),
        ("b", DATA, (6,)),
        ("a", POST_DATA, (10, 12)),
        ("b", POST_DATA, (11,)),
        ("", POST_DATA, (9, 13)),
    ]


def test_a_foreign_key_is_restored_before_what_a_query_on_its_tables_would_plan() -> None:
    kinds = [
        ("INDEX", "CREATE UNIQUE INDEX a ON s.t USING btree (n)", ()),
        ("INDEX", "CREATE UNIQUE INDEX b ON s.t USING btree (s.f(1))", ()),
        ("STATISTICS", "CREATE STATISTICS s.c ON s.f(1), n FROM s.t", ()),
        ("CONSTRAINT", "ALTER TABLE ONLY s.t ADD CONSTRAINT d PRIMARY KEY (n)", ()),
        ("CONSTRAINT", "ALTER TABLE ONLY s.t ADD CONSTRAINT e EXCLUDE USING gist (s.f(1) WITH =)", ()),
        ("COMMENT", "COMMENT ON INDEX s.b IS 'x'", (1,)),
        ("INDEX ATTACH", "ALTER INDEX s.p ATTACH PARTITION s.a", (0,)),
        ("FK CONSTRAINT", "ALTER TABLE ONLY s.t ADD CONSTRAINT g FOREIGN KEY (n) REFERENCES", (3, 6)),
        ("TRIGGER", "CREATE TRIGGER h …", ()),
    ]  # fmt: skip
    entries = [
        Entry(number, kind, POST_DATA, "s", f"n{number}", "root", definition, needs)
        for number, (kind, definition, needs) in enumerate(kinds)
    ]
    runs = plan_runs(entries, SUPERUSERS, "owner")
    assert [run.numbers for run in runs] == [(0, 3, 6, 7), (1, 2, 4, 5, 8)]


def test_an_owner_is_lent_rights_in_schemas_that_his_entries_refer_to_and_in_no_other() -> None:
    text = """CREATE TABLE a.t (n "x.y".n DEFAULT 'admin.secret', CONSTRAINT "b.c" CHECK (d.f(n) <> $$e.g$$))"""
    kept = Entry(3, "TYPE", PRE_DATA, "k", "kind", "other", "CREATE TYPE k.kind AS ENUM (", ())
    table = Entry(1, "TABLE", PRE_DATA, "a", "t", "tenant", f"{text} GENERATED ALWAYS AS (", (3,))
    view = Entry(
        4, "VIEW", PRE_DATA, "a", "v", "tenant", "SELECT '{}'::x.d, alias.n FROM a.t alias", ()
    )
    domain = Entry(5, "DOMAIN", PRE_DATA, "x", "d", "tenant", "CREATE DOMAIN x.d", ())
    run = plan_runs([kept, domain, table, view], SUPERUSERS, "owner")[-1]
    assert (run.owner, run.numbers) == ("tenant", (1, 4))
    assert run.schemas == {"a", "k", "x.y", "d"}
    assert (run.made_in("a"), run.made_in("d"), run.references) == (2, 0, 0)


TABLE: Objects = {("table", 20001): ("s.kept", 10, ())}


@pytest.mark.parametrize(
    "after",
    [
        {},
        {("table", 20002): ("s.kept", 10, ())},
        {("table", 20001): ("away.kept", 10, ())},
        {("table", 20001): ("s.kept", 20000, ())},
        {("table", 20001): ("s.kept", 10, (20003,))},
    ],
    ids=["dropped", "another one", "renamed", "another owner", "a trigger"],
)
def test_an_owner_s_code_that_changed_an_object_of_another_role_is_named(after: Objects) -> None:
    with pytest.raises(PermanentError, match=r"code of role anna .* of other roles: table s\.kept"):
        check_unchanged("anna", TABLE, after)


def test_an_owner_s_code_may_create_objects() -> None:
    check_unchanged("anna", TABLE, {**TABLE, ("table", 20009): ("s.own", 20000, ())})
