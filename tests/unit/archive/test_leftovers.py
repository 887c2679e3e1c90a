"""What engines hold for us stays noted until it is known to be gone."""

from __future__ import annotations

from typing import Any

import pytest

from archive.leftovers import REPLACING, Leftovers

SNAPSHOT, ARCHIVE = {"peer": "qdrant-0", "path": "/a"}, {"node": "emqx-0"}


@pytest.fixture
def noted() -> list[list[Any]]:
    return []


def test_what_nobody_has_removed_is_carried_on(noted: list[list[Any]]) -> None:
    left = Leftovers([SNAPSHOT, ARCHIVE], lambda held: noted.append(list(held)))
    assert left.earlier("peer") == (SNAPSHOT,)
    mine = {"peer": "qdrant-1", "path": "/a"}
    left.hold(mine)
    left.release(mine)
    assert noted == [[SNAPSHOT, ARCHIVE, mine], [SNAPSHOT, ARCHIVE]]
    left.release(SNAPSHOT)
    assert noted[-1] == [ARCHIVE]


def test_what_breaks_off_in_the_midst_stays_noted(noted: list[list[Any]]) -> None:
    left = Leftovers([], lambda held: noted.append(list(held)))
    with pytest.raises(OSError, match="away"), left.replacing(["stream app/ORDERS"]):
        raise OSError("away")
    assert noted == [[{REPLACING: ["stream app/ORDERS"]}]]
    with left.replacing(["stream app/ORDERS"]):
        pass
    assert noted[-1] == [{REPLACING: ["stream app/ORDERS"]}]  # the first one's
