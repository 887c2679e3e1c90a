"""A rebuild does what its policy asks for, knows where it stood, and refuses what cannot be meant."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from errors import ArgumentError, PermanentError
from operations.rebuild.plan import RebuildPlan
from operations.rebuild.rebuild import resumed_state
from operations.rebuild.report import RebuildReport
from operations.rebuild.steps import step_names
from operations.runner.walk import FAILED, NodeResult
from operations.state.rebuild_state import Policy, RebuildState
from operations.state.restore_journal import InterruptedRestore

PLAN = RebuildPlan(
    Policy("redis"), {"redis-cluster": "redis-cluster-13.0.4, revision 3"}, {"data-0": "8Gi"}, ("all keys",),
    "restore proven at L4", "they cannot write", ("emqx",), (), (),
)  # fmt: skip


REBUILD = "rebuild-20260101t000000z-00ab"
SET, OTHER = "redis-20260101T000500Z-0a1b2c", "redis-20251231T000500Z-0a1b2c"
SETTINGS: Any = SimpleNamespace(kubernetes=SimpleNamespace(control_namespace="isa-system"))


class Lease:
    def __init__(self, note: str) -> None:
        self.previous_operation = note


@pytest.mark.parametrize(
    ("policy", "steps"),
    [
        (Policy("redis"),
         "fence backup proof uninstall volumes install restore dependants"),
        (Policy("redis", "new", "none"),
         "backup proof uninstall volumes install dependants"),
        (Policy("redis", "keep", "none"),
         "backup proof uninstall install dependants"),
        (Policy("redis", "new", "redis-20260101T000000Z-abcdef", final_backup=False),
         "uninstall volumes install restore dependants"),
    ],
)  # fmt: skip
def test_the_steps_are_those_of_the_policy(policy: Policy, steps: str) -> None:
    assert step_names(replace(PLAN, policy=policy)) == steps.split()


def test_an_unfinished_rebuild_goes_on_where_it_stood() -> None:
    done = ["fence", "backup", "proof", "uninstall", "volumes"]
    stood = RebuildState(REBUILD, Policy("redis"), SET, done)
    found = resumed_state(Lease(stood.text()), SETTINGS, Policy("redis"))  # type: ignore[arg-type]
    assert found == stood
    assert resumed_state(Lease(""), SETTINGS, Policy("redis")).done == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("restore", "again"),
    [(None, True), (InterruptedRestore(SET), False), (InterruptedRestore(OTHER), True)],
)
def test_an_install_is_looked_at_again_unless_its_restore_has_left_the_engine_half_replaced(
    restore: InterruptedRestore | None, again: bool
) -> None:
    done = ["uninstall", "volumes", "install"]
    stood = RebuildState(REBUILD, Policy("redis"), SET, done)
    found = resumed_state(Lease(stood.text()), SETTINGS, Policy("redis"), restore)  # type: ignore[arg-type]
    assert ("install" not in found.done) == again


def test_an_unfinished_rebuild_of_another_policy_is_not_taken_over() -> None:
    stood = RebuildState(REBUILD, Policy("redis", "keep", "none"), "", ["backup"])
    with pytest.raises(
        PermanentError, match=r"rebuild-20260101t000000z-00ab is not finished .*rebuild undo"
    ):
        resumed_state(Lease(stood.text()), SETTINGS, Policy("redis"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"claims": {"data-0": "16Gi"}},
        {"releases": {"redis-cluster": "redis-cluster-13.0.4, revision 4"}},
        {"proof": "another"},
        {"warnings": ("new",)},
    ],
)
def test_whatever_moves_makes_it_another_plan(change: dict[str, Any]) -> None:
    assert replace(PLAN).digest == PLAN.digest
    assert replace(PLAN, **change).digest != PLAN.digest


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (Policy("mysql"), "component: unknown"),
        (Policy("redis", "old"), "volumes: unknown"),  # type: ignore[arg-type]
        (Policy("redis", "new", "fresh", final_backup=False), "no backup is taken"),
        (Policy("redis", "keep", "fresh"), "the kept volumes hold newer data"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(policy: Policy, says: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        policy.check()
    assert says in str(refused.value.faults[0])


def test_a_failure_says_what_is_true_now() -> None:
    steps = (NodeResult("backup", FAILED, 1.0, "the store is away"),)
    before = RebuildReport("redis", REBUILD, 1.0, steps, "", (), changed=False)
    assert "Nothing was changed" in before.summary
    after = replace(before, set=SET, aside=("pvc-1",), changed=True)
    assert f"the backup {SET} and the old volumes pvc-1 are retained" in after.summary
    assert "continues here" in after.summary
    shut = replace(before, shut="redis-3 does not answer")
    assert "WRITES ARE STILL BLOCKED (redis-3 does not answer)" in shut.summary
    assert "let in," not in shut.summary
