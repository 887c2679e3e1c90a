"""Which databases a backup takes, and which it says that it lacks."""

from __future__ import annotations

import pytest

from components.neo4j.backup import online_and_stopped
from errors import TemporaryError


def row(
    name: str, current: str, requested: str = "online", kind: str = "standard"
) -> dict[str, str]:
    return {"name": name, "type": kind, "currentStatus": current, "requestedStatus": requested}


def test_a_stopped_database_is_told_and_not_taken() -> None:
    rows = [row("neo4j", "online"), row("old", "offline", "offline"), row("system", "online")]
    assert online_and_stopped(rows) == (["neo4j", "system"], ["old"])


def test_one_that_should_be_online_and_is_not_is_waited_for() -> None:
    with pytest.raises(TemporaryError, match="orders should be online"):
        online_and_stopped([row("neo4j", "online"), row("orders", "store copying")])


def test_a_composite_has_no_data_of_its_own() -> None:
    rows = [row("neo4j", "online"), row("all", "offline", "offline", "composite")]
    assert online_and_stopped(rows) == (["neo4j"], [])
