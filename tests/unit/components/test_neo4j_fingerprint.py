"""How a graph is digested, told by what a session gives."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from neo4j.spatial import WGS84Point
from neo4j.time import Date

from archive.backup.manifest import Measure
from components.access import Endpoint
from components.neo4j.client import unless_silent
from components.neo4j.fingerprint import (
    FORMS,
    GROUPS,
    NEWEST,
    SECOND,
    Form,
    form_of,
    measure_graph,
)
from errors import PermanentError, TemporaryError

BORN = {"type": "DATE NOT NULL", "text": "1990-05-17"}


def graph(
    properties: Any, form: Form = NEWEST, labels: tuple[str, ...] = ("Person",)
) -> list[Measure]:
    """Measure a graph of one node."""
    answers = {form.nodes: [{"labels": list(labels), "properties": properties}]}
    session: Any = SimpleNamespace(run=lambda text: answers.get(text, []))
    return measure_graph(session, "database neo4j", form)


def digest(properties: Any, form: Form = NEWEST) -> str:
    return next(one.digest for one in graph(properties, form) if one.item == "nodes Person")


def test_two_readings_of_one_graph_are_the_same() -> None:
    assert graph([["born", BORN], ["id", 7]]) == graph([["id", 7], ["born", BORN]])


def test_a_date_is_not_the_text_of_a_date() -> None:
    assert digest([["born", BORN]]) != digest([["born", "1990-05-17"]])


def test_bytes_are_not_the_list_of_their_numbers() -> None:
    digests = {digest([["logo", value]]) for value in (b"\x01\x02", [1, 2], "0102", b"\x02\x01")}
    assert len(digests) == 4


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), -0.0, 0.0, 0, False, "0", 2**63 - 1, []]
)
def test_every_plain_value_is_another(value: Any) -> None:
    others = [float("nan"), float("inf"), -float("inf"), -0.0, 0.0, 0, False, "0", 2**63 - 1, []]
    assert [digest([["v", other]]) for other in others].count(digest([["v", value]])) == 1


def test_a_type_that_the_queries_do_not_know_is_refused() -> None:
    with pytest.raises(PermanentError, match="cannot be digested"):
        graph([["when", Date(2026, 1, 1)]])


def test_a_set_of_the_first_version_is_compared_by_its_own_digest() -> None:
    properties = {
        "id": 7,
        "born": Date(1990, 5, 17),
        "place": WGS84Point((1.5, 2.5)),
        "logo": b"\0\1",
    }
    first: Any = SimpleNamespace(topology={"databases": ["neo4j"]})
    recorded = "109cff9258ec2e3378ef201a816356f0/109cff9258ec2e3378ef201a816356f0"
    assert digest(properties, form_of(first)) == recorded


def test_a_new_set_names_its_form() -> None:
    of_now: Any = SimpleNamespace(topology={"fingerprint": NEWEST.version})
    assert form_of(of_now) is NEWEST
    assert NEWEST.version == max(FORMS)


def measured(
    labels: Sequence[tuple[str, ...]] = (), types: Sequence[str] = (), form: Form = NEWEST
) -> dict[str, Measure]:
    """Measure nodes with these labels and relationships of these types."""
    ends = {"from_labels": ["A"], "from_properties": [], "to_labels": [], "to_properties": []}
    answers = {
        form.nodes: [{"labels": list(one), "properties": []} for one in labels],
        form.relationships: [{"type": one, "properties": [], **ends} for one in types],
    }
    session: Any = SimpleNamespace(run=lambda text: answers.get(text, []))
    return {one.item: one for one in measure_graph(session, "database neo4j", form)}


@pytest.mark.parametrize("form", [SECOND, NEWEST])
def test_long_labels_and_types_are_measured_beside_the_others(form: Form) -> None:
    many = tuple(f"{n:050}" for n in range(100))
    found = measured([("A",), ("L" * 4_001,), ("L" * 4_002,), many], ["T" * 4_001], form)
    assert len(found) == 4 + 1 + 2
    assert found["nodes A"].count == 1


def test_combinations_of_labels_beyond_the_limit_are_one_measure_in_whatever_order_they_come() -> (
    None
):
    form = replace(NEWEST, groups=2)
    labels = [("d",), ("b",), ("a",), ("c",), ("d",), ("b",)]
    there, back = measured(labels, form=form), measured(labels[::-1], form=form)
    assert there == back
    counts = {item: one.count for item, one in there.items() if item.startswith("nodes")}
    assert counts == {"nodes a": 1, "nodes b": 2, "nodes of other labels": 3}
    lost = measured(labels[:-2], form=form)
    assert lost["nodes of other labels"].digest != there["nodes of other labels"].digest


def test_a_set_of_the_second_version_has_a_measure_for_each_combination() -> None:
    labels = [(f"l{n}",) for n in range(GROUPS + 5)]
    assert len(measured(labels, form=SECOND)) == GROUPS + 5 + 2
    assert len(measured(labels)) == GROUPS + 1 + 2


def test_each_row_tells_that_the_server_answers() -> None:
    heard: list[None] = []
    rows = {NEWEST.nodes: [{"labels": ["A"], "properties": []}] * 3}
    session: Any = SimpleNamespace(run=lambda text: rows.get(text, []))
    measure_graph(session, "database neo4j", heard=lambda: heard.append(None))
    assert len(heard) == 3


def test_a_server_that_falls_silent_ends_the_query() -> None:
    closed = threading.Event()
    driver: Any = SimpleNamespace(close=closed.set)
    with (
        pytest.raises(TemporaryError, match="neo4j-1-0 sent nothing for"),
        unless_silent(driver, Endpoint("neo4j-1-0", "127.0.0.1", 7687, "", ""), 0.01),
    ):
        assert closed.wait(60)
        raise OSError("the socket was closed")
