"""How a graph is digested, told by what a session gives."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from neo4j.spatial import WGS84Point
from neo4j.time import Date

from archive.manifest import Measure
from components.neo4j.fingerprint import FORMS, NEWEST, Form, form_of, measure_graph
from errors import PermanentError

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
