"""Which databases a backup takes, and which it says that it lacks."""

from __future__ import annotations

import pytest

from components.neo4j.backup import online_and_lacking
from errors import TemporaryError


def row(
    name: str, current: str, requested: str = "online", kind: str = "standard", said: str = ""
) -> dict[str, str]:
    return {
        "name": name,
        "type": kind,
        "currentStatus": current,
        "requestedStatus": requested,
        "statusMessage": said,
    }


def test_a_stopped_database_is_named_and_not_taken() -> None:
    rows = [row("neo4j", "online"), row("old", "offline", "offline"), row("system", "online")]
    assert online_and_lacking(rows) == (
        ["neo4j", "system"],
        ["database old is stopped: START DATABASE, or drop it"],
    )


@pytest.mark.parametrize("state", ["starting", "store copying", "initial"])
def test_a_database_that_is_about_to_be_online_is_waited_for(state: str) -> None:
    with pytest.raises(TemporaryError, match=f"orders should be online and is {state}"):
        online_and_lacking([row("neo4j", "online"), row("orders", state)])


@pytest.mark.parametrize("state", ["offline", "quarantined", "dirty"])
def test_a_database_that_failed_costs_the_set_itself_and_no_other(state: str) -> None:
    rows = [row("neo4j", "online"), row("orders", state, said="Unable to start")]
    online_ones, lacking = online_and_lacking(rows)
    assert online_ones == ["neo4j"]
    assert lacking == [f"database orders: it should be online but is {state} (Unable to start)"]


def test_a_database_with_one_copy_online_is_taken() -> None:
    rows = [row("neo4j", "store copying"), row("neo4j", "online")]
    assert online_and_lacking(rows) == (["neo4j"], [])


def test_a_composite_has_no_data_of_its_own() -> None:
    rows = [row("neo4j", "online"), row("all", "offline", "offline", "composite")]
    assert online_and_lacking(rows) == (["neo4j"], [])
