"""Who approves a rebuild is told what it loses, what it goes on with, and why it cannot begin."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from errors import PermanentError
from operations.deploy.plan import DRIFTED, UNCHANGED
from operations.health import freshness
from operations.rebuild import plan as rebuild_plan
from operations.rebuild.plan import RebuildPlan, plan_rebuild
from operations.state.rebuild_state import NEW, NONE, Policy, RebuildState
from tests.environments import environment_with

from ..stored import Stored, environment_of, settings_of

BEGUN = datetime(2026, 1, 1, 2, 30, tzinfo=UTC)
REBUILD, SET = "rebuild-20260101t000000z-00ab", "nats-20260101T000500Z-0a1b2c"
DONE = ["backup", "proof", "uninstall", "volumes"]


@dataclass
class World:
    """What a plan looks at.

    Attributes:
        whole: whether the newest set can be restored.
        state: of the proofs.
        drift: why the component is not as it is declared.
        asked: sets that were looked at.
    """

    kube: Stored = field(default_factory=Stored)
    whole: bool = True
    proven: bool = True
    state: str = freshness.FRESH
    drift: tuple[str, ...] = ()
    asked: list[str] = field(default_factory=list)

    def plan_restore(
        self, environment: object, catalogue: object, name: str, *, new_engine: bool
    ) -> Any:
        self.asked.append(name)
        if not self.whole:
            raise PermanentError("it is not whole")
        manifest = SimpleNamespace(id=name, begun=BEGUN, not_covered=())
        units = [SimpleNamespace(unit="a unit")]
        return SimpleNamespace(
            manifest=manifest, units=units, left=("database system",), proven=self.proven
        )

    def checked_plan(self, *_: object) -> Any:
        node = SimpleNamespace(action=DRIFTED if self.drift else UNCHANGED, reasons=self.drift)
        return SimpleNamespace(blocked=[], node=lambda name: node)

    def plan(self, policy: Policy) -> RebuildPlan:
        newest = SimpleNamespace(id=f"{policy.component}-newest", begun=BEGUN, seconds=120.0)
        catalogue = SimpleNamespace(latest=lambda name: newest)
        environment = environment_with(
            settings_of(components=SimpleNamespace(neo4j=SimpleNamespace(edition="community"))),
            kube=self.kube,
            releases=SimpleNamespace(of=lambda name: []),
            catalogue=lambda names: catalogue,
        )
        return plan_rebuild(environment, policy)

    def broken_off(self, standing: RebuildState) -> None:
        with environment_of(self.kube).lease(
            f"isa-rebuild-{standing.policy.component}", "test"
        ) as lease:
            lease.note(standing.text())


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    evidence = SimpleNamespace(seconds=180.0, sentence="proven")
    look = lambda *_: (SimpleNamespace(state=made.state, evidence=evidence),)  # noqa: E731
    monkeypatch.setattr(freshness, "look", look)
    monkeypatch.setattr(rebuild_plan, "plan_restore", made.plan_restore)
    monkeypatch.setattr(rebuild_plan, "checked_plan", made.checked_plan)
    monkeypatch.setattr(rebuild_plan, "read_records", lambda *_: {})
    monkeypatch.setattr(rebuild_plan, "claims", lambda *_: [])
    monkeypatch.setattr(rebuild_plan, "_dependants", lambda *_: ())
    return made


@pytest.mark.parametrize(
    ("component", "policy", "lost"),
    [
        ("nats", {}, True),
        ("qdrant", {}, True),
        ("neo4j", {}, True),
        ("redis", {}, False),
        ("postgresql", {}, False),
        ("nats", {"restore": NONE}, False),
        ("nats", {"volumes": "keep", "restore": NONE}, False),
    ],
)
def test_an_engine_without_a_fence_loses_what_is_written_and_says_so(
    component: str, policy: dict[str, Any], lost: bool, world: World
) -> None:
    found = world.plan(Policy(component, **policy))
    assert any("writers cannot be blocked" in words for words in found.warnings) == lost
    assert any("5 min of writes" in words for words in found.warnings) == lost
    assert found.blocked == ()


def test_what_stays_away_is_said(world: World) -> None:
    assert any("database system" in words for words in world.plan(Policy("neo4j")).warnings)


def test_what_is_not_known_cannot_be_fenced(world: World) -> None:
    world.whole = False
    found = world.plan(Policy("redis"))
    assert any("what has to be fenced is unknown" in words for words in found.blocked)
    assert world.plan(Policy("redis", restore=NONE)).blocked == ()


def test_what_will_be_other_than_it_is_now_is_part_of_the_plan(world: World) -> None:
    world.drift = ("redis-cluster: image 8.2 → 8.4",)
    first = world.plan(Policy("redis"))
    assert any("8.2 → 8.4" in words for words in first.warnings)
    world.drift = ("redis-cluster: image 8.2 → 9.0",)
    assert world.plan(Policy("redis")).digest != first.digest


def test_a_rebuild_that_goes_on_says_which_set_comes_back(world: World) -> None:
    new = world.plan(Policy("nats"))
    world.broken_off(RebuildState(REBUILD, Policy("nats"), SET, DONE))
    world.state = freshness.STALE  # days have passed; the engine is gone, and its set was proven
    found = world.plan(Policy("nats"))
    words = f"continues {REBUILD}, which completed backup, proof, uninstall, volumes: no backup is taken now"
    assert f"{words}; it restores {SET}" in found.warnings
    assert not any("writers cannot be blocked" in words for words in found.warnings)
    assert world.asked[-1] == SET
    assert found.blocked == ()
    assert found.digest != new.digest  # an approval of one is none of the other


def test_one_that_was_broken_off_before_its_uninstall_begins_anew(world: World) -> None:
    world.broken_off(RebuildState(REBUILD, Policy("nats"), SET, DONE[:2]))
    found = world.plan(Policy("nats"))
    assert any("all steps start again" in words for words in found.warnings)
    assert any("writers cannot be blocked" in words for words in found.warnings)
    assert world.asked[-1] == "nats-newest"


def test_an_unfinished_rebuild_of_another_policy_is_in_the_way(world: World) -> None:
    world.broken_off(RebuildState(REBUILD, Policy("nats", "keep", NONE), "", DONE))
    found = world.plan(Policy("nats"))
    assert any(
        f"{REBUILD} is not finished" in words and "rebuild undo" in words for words in found.blocked
    )


def test_a_named_set_without_a_passed_proof_is_in_the_way(world: World) -> None:
    named = Policy("neo4j", NEW, "neo4j-20260101T023000Z-abcdef", final_backup=False)
    world.proven = False
    assert any("was ever verified" in why for why in world.plan(named).blocked)
    world.proven = True
    assert not any("was ever verified" in why for why in world.plan(named).blocked)
