"""A backup of a primary is compared with what its files can hold, whatever clients wrote while it was taken."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from archive.backup.manifest import Manifest, Measure
from components.postgresql.base_backup.writes import (
    CHANGED,
    Counters,
    changed_tables,
    comparable,
    of_files,
    read_counters,
)

UNIT = "database shop"
CLASS = "pg_catalog.pg_class"


def rows(label: str, count: int = 10) -> Measure:
    return measure(f"rows of {label}", count)


def measure(item: str, count: int = 10) -> Measure:
    return Measure(unit=UNIT, item=item, count=count, digest="a" * 32, origin="source")


def table(rows: int, updated: int = 0, file: int = 1, oid: int = 1) -> Counters:
    return Counters(frozenset([(oid, file)]), rows, updated)


def about(one: Measure) -> tuple[int, int | None, str]:
    return one.count, one.until, one.digest


class Server:
    """Answers with these rows, in the order of the query."""

    def __init__(self, *found: tuple[Any, ...]) -> None:
        self.found = found

    def execute(self, query: bytes) -> Any:
        assert b"pg_stat_get_tuples_inserted" in query
        return iter(self.found)


def test_a_partitioned_table_has_the_counters_of_all_its_partitions() -> None:
    server = Server(
        ("public.a1", 1, 11, 5, 1, ["public.a"]),
        ("public.a2", 2, 12, 7, 2, ["public.a"]),
        ("public.b", 3, 13, 9, 0, []),
    )
    assert read_counters(cast(Any, server)) == {
        "public.a1": table(5, 1, 11, 1),
        "public.a2": table(7, 2, 12, 2),
        "public.b": table(9, 0, 13, 3),
        "public.a": Counters(frozenset([(1, 11), (2, 12)]), 12, 3),
    }


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        (table(5, 1), table(5, 1), {}),
        (table(5, 1), table(8, 1), {"t": 3}),
        (table(5, 1), table(5, 2), {"t": 0}),
        (table(5, 1), table(5, 1, file=2), {"t": None}),
        (table(5, 1), table(5, 1, oid=2), {"t": None}),
        (table(5, 1), table(4, 1), {"t": None}),  # the server has reset its counters
        (table(5, 1), table(6, 0), {"t": None}),
        (None, table(5), {"t": None}),
        (table(5), None, {"t": None}),
    ],
)
def test_what_was_written_to_a_table(
    before: Counters | None, after: Counters | None, changed: dict[str, int | None]
) -> None:
    assert changed_tables({"t": before} if before else {}, {"t": after} if after else {}) == changed


def test_rows_that_clients_wrote_leave_a_dump_exact() -> None:
    # a dump reads rows on its snapshot
    measures = [rows("public.jobs"), measure("relations"), measure("role attributes")]
    assert comparable(measures, {"public.jobs": 4}, None) == measures


def test_a_table_that_is_another_one_now_is_compared_with_nothing() -> None:
    (found,) = comparable([rows("public.again")], {"public.again": None}, None)
    assert (found.item, found.count, found.digest) == ("unmeasured table public.again", 0, "")


def test_definitions_are_exact_unless_catalogues_were_written_to() -> None:
    measures = [measure("relations"), measure("role attributes"), measure("view definitions")]
    changed = {CLASS: 2, "pg_catalog.pg_attribute": 1, "pg_catalog.pg_statistic": 50}
    assert [about(one) for one in comparable(measures, changed, None)] == [(7, 13, "")] * 3
    assert comparable(measures, {"pg_catalog.pg_statistic": 50}, None) == measures
    assert comparable(measures, {"pg_catalog.pg_largeobject": 5}, None) == measures


def test_a_catalogue_in_which_rows_were_updated_only_keeps_the_number() -> None:
    (found,) = comparable([measure("relations")], {CLASS: 0}, None)
    assert about(found) == (10, 10, "")


def test_large_objects_are_uncertain_if_they_themselves_were_written_to() -> None:
    objects = measure("contents of large objects", 3)
    (found,) = comparable([objects], {"pg_catalog.pg_largeobject": 5}, None)
    assert about(found) == (0, 8, "")
    assert comparable([objects], {CLASS: 9}, None) == [objects]


def test_sequences_that_moved_are_counted_only() -> None:
    # no table's counter says so
    sequences = measure("sequences", 2)
    assert comparable([sequences], {}, sequences) == [sequences]
    moved = sequences.model_copy(update={"digest": "b" * 32})
    assert about(comparable([sequences], {}, moved)[0]) == (2, 2, "")


# ---------------------------------------------------------------------- the files
def manifest(changed: dict[str, int] | None, *fingerprint: Measure) -> Manifest:
    topology = {} if changed is None else {CHANGED: {"shop": changed}}
    return cast(Manifest, SimpleNamespace(topology=topology, fingerprint=fingerprint))


def test_files_of_a_primary_have_as_many_rows_more_or_fewer_as_were_written() -> None:
    source = manifest({"public.jobs": 4, "public.seen": 0}, rows("public.jobs"), rows("public.a"))
    found = of_files(
        source, "shop", [rows("public.jobs", 3), rows("public.seen", 6), rows("public.a")]
    )
    assert [about(one) for one in found] == [(0, 7, ""), (6, 6, ""), (10, None, "a" * 32)]


def test_a_table_that_only_the_files_have_is_an_error_unless_tables_came_and_went() -> None:
    known, extra = measure("relations"), rows("public.passing", 1)
    assert of_files(manifest({}, known), "shop", [known, extra]) == [known, extra]
    uncertain = known.model_copy(update={"until": 12, "digest": ""})
    assert of_files(manifest({}, uncertain), "shop", [known, extra]) == [known]


def test_files_of_a_standby_are_exact() -> None:
    measures = [rows("public.jobs"), rows("public.extra")]
    assert of_files(manifest(None, rows("public.jobs")), "shop", measures) == measures
