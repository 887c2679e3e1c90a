from __future__ import annotations

from typing import Any

import pytest

from cluster.objects.fields import Change, differences, missing


def paths(old: Any, new: Any) -> list[str]:
    return [change.path for change in differences(old, new)]


def test_a_changed_field_is_told_with_both_values() -> None:
    (change,) = differences({"spec": {"replicas": 3}}, {"spec": {"replicas": 5}})
    assert str(change) == "spec.replicas 3 → 5"
    assert change.as_json() == {"path": "spec.replicas", "old": 3, "new": 5, "manager": ""}


def test_containers_go_by_their_names_wherever_they_stand() -> None:
    old = {"containers": [{"name": "a", "image": "x:1"}]}
    new = {"containers": [{"name": "b", "image": "y:1"}, {"name": "a", "image": "x:2"}]}
    assert paths(old, new) == ["containers[a].image", "containers[b]"]


def test_a_list_without_names_of_another_length_differs_as_a_whole() -> None:
    assert paths({"args": ["a"]}, {"args": ["a", "b"]}) == ["args"]
    assert paths({"args": ["a", "c"]}, {"args": ["a", "b"]}) == ["args[1]"]


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [("resources.requests.cpu", "1000m", 1), ("hard.memory", "1Gi", "1024Mi")],
)
def test_a_quantity_is_an_amount(path: str, old: Any, new: Any) -> None:
    assert list(differences(old, new, path)) == []


def test_the_text_of_a_variable_is_no_quantity() -> None:
    assert paths({"env": [{"name": "A", "value": "1000m"}]}, {"env": [{"name": "A", "value": "1"}]})


def test_true_is_not_one() -> None:
    assert paths({"a": 1}, {"a": True}) == ["a"]


def test_what_a_live_object_has_beside_the_wanted_is_not_missing() -> None:
    live = {"containers": [{"name": "b"}, {"name": "a", "image": "x", "pull": "Always"}], "more": 1}
    assert list(missing({"containers": [{"name": "a", "image": "x"}]}, live)) == []


def test_keys_with_dots_stand_in_brackets() -> None:
    assert paths({"data": {"nats.conf": "a"}}, {"data": {}}) == ["data[nats.conf]"]


def test_of_a_long_text_the_lines_that_changed_are_told() -> None:
    (change,) = differences({"conf": "a: 1\nb: 2\nc: 3\n"}, {"conf": "a: 1\nb: 4\nc: 3\n"})
    assert str(change) == 'conf lines "-b: 2", "+b: 4"'


@pytest.mark.parametrize(
    "change",
    [
        Change("data.anything", "hunter22", "hunter23", hidden=True),
        Change("env[ADMIN_PASSWORD].value", None, "hunter22"),
        Change("env[API_KEY].value", "hunter22", "hunter23"),
    ],
)
def test_values_that_may_be_credentials_are_hidden(change: Change) -> None:
    assert "hunter2" not in str(change)
    assert "hunter2" not in str(change.as_json())


def test_a_change_touches_what_lies_below_it() -> None:
    change = Change("spec.ports", 1, 2)
    assert change.touches(Change("spec.ports[http]", 1, 2))
    assert not change.touches(Change("spec.portsMore", 1, 2))
