"""The restore of a point between two backups: its plan, and that nothing is replaced where it is not reached."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from archive.evidence.verdicts import Difference
from archive.wal.coverage import NotCovered
from components.base import Live
from errors import ArgumentError, PermanentError
from operations.restore import point as restore_point
from operations.restore.plan import RestorePlan, plans_of
from operations.restore.point import recover
from operations.runner.context import RunContext
from tests.environments import changed

from .test_point_proof import IDENTITY, REACHED, World

UNUSED: Any = None
LIVE = Live(
    units=lambda reader: {"globals": 5, "database isa": 100, "database shop": 50}, fence=UNUSED, replace=UNUSED,
    measure=UNUSED, writers="they wait", server_wide=("globals",), beside=True,
)  # fmt: skip


class Restored(World):
    """The same, with a live engine.

    Attributes:
        taken: arguments of backups that were taken.
    """

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[dict[str, Any]] = []

    @property
    def live(self) -> Any:
        component = SimpleNamespace(live=LIVE)
        return changed(self.environment, components={"postgresql": component})

    def plan(self, at: str = "2026-11-29T12:00:30Z", *units: str) -> RestorePlan:
        (plan,) = plans_of(self.live, "", units, other_cluster=False, at=at)
        return plan

    def back_up(self, *_: Any, **named: Any) -> Any:
        self.taken.append(named)
        named["take"](None, cast(Any, None))
        return SimpleNamespace(id=self.manifest.id)

    def recover(self, plan: RestorePlan) -> RestorePlan:
        assert plan.to_point is not None
        return recover(self.live, RunContext("test"), IDENTITY, plan, plan.to_point)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Restored:
    made = Restored()
    monkeypatch.setattr(restore_point, "engines", made.engines)
    monkeypatch.setattr(restore_point, "back_up", made.back_up)
    monkeypatch.setattr(restore_point, "check_store", lambda environment: None)
    return made


def test_the_plan_says_which_point_comes_back_and_from_what(world: Restored) -> None:
    plan = world.plan()
    assert plan.target == "2026-11-29T12:00:30Z"
    assert plan.source == f"{world.manifest.id} and 32 MiB of WAL, 0/1000000 to 0/3000000"
    assert [one.unit for one in plan.units] == ["database isa", "database shop"]
    document = plan.document()
    assert (document.backup, document.point) == (world.manifest.id, "2026-11-29T12:00:30Z")
    assert any("created after" in words for words in plan.warnings)
    assert any("was ever verified" in words for words in plan.warnings)
    assert not any("created after" in words for words in world.plan("0/1000100", "isa").warnings)


@pytest.mark.parametrize(
    ("at", "kind"),
    [("2026-11-29T12:02:00Z", NotCovered), ("2026-11-29T12:00:30", ArgumentError)],
)
def test_a_point_that_is_wrong_or_not_covered_has_no_plan(
    at: str, kind: type[Exception], world: Restored
) -> None:
    with pytest.raises(kind):
        world.plan(at)


def test_what_the_point_held_is_stored_as_a_backup_that_is_restored_then(world: Restored) -> None:
    plan = world.recover(world.plan("2026-11-29T12:00:30Z", "shop"))
    (taken,) = world.taken
    assert taken["full"] and taken["slot"] == ""
    assert world.dumped == [REACHED]
    assert plan.to_point is None
    assert [one.unit for one in plan.units] == ["database shop"]


def test_nothing_is_stored_of_a_point_that_was_not_reached(world: Restored) -> None:
    fault = Difference(unit="recovery", item="end", what="it ended at 0/1, before 0/2")
    world.recovered = replace(REACHED, faults=(fault,))
    with pytest.raises(PermanentError, match="it ended at 0/1, before 0/2"):
        world.recover(world.plan())
    assert world.taken == []
