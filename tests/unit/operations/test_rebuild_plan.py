"""Who approves a rebuild is told what it loses, what it goes on with, and why it cannot begin."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.dag import Dag
from components import COMPONENTS
from components.base import Check
from errors import ArgumentError, PermanentError
from operations.deploy.plan import DRIFTED, INSTALL, UNCHANGED, UPGRADE
from operations.health import freshness
from operations.rebuild import plan as rebuild_plan
from operations.rebuild.plan import RebuildPlan, plan_rebuild
from operations.state.rebuild_state import NEW, NONE, Policy, RebuildState
from tests.environments import environment_with

from ..stored import NAMESPACE, Stored, environment_of, settings_of

BEGUN = datetime(2026, 1, 1, 2, 30, tzinfo=UTC)
REBUILD, SET = "rebuild-20260101t000000z-00ab", "nats-20260101T000500Z-0a1b2c"
DONE = ["backup", "proof", "uninstall", "volumes"]


@dataclass
class World:
    """What a plan looks at.

    Attributes:
        whole: whether the newest set can be restored.
        state: of the proofs.
        action: what a deploy would do.
        drift: why.
        preflight: findings of the preflight that block.
        evidence: of the last passed proof.
        backups: whether there are any.
        edition: of Neo4j.
        releases: names of the component's releases.
        not_covered: by a set.
        asked: sets that were looked at, and whether into a new engine.
    """

    kube: Stored = field(default_factory=Stored)
    whole: bool = True
    proven: bool = True
    state: str = freshness.FRESH
    action: str = UNCHANGED
    drift: tuple[str, ...] = ()
    preflight: list[Check] = field(default_factory=list)
    evidence: Any = field(default_factory=lambda: SimpleNamespace(seconds=180.0, sentence="proven"))
    backups: bool = True
    edition: str = "community"
    releases: tuple[str, ...] = ()
    not_covered: tuple[str, ...] = ()
    asked: list[tuple[str, bool]] = field(default_factory=list)

    def plan_restore(
        self, environment: object, catalogue: object, name: str, *, new_engine: bool
    ) -> Any:
        self.asked.append((name, new_engine))
        if not self.whole:
            raise PermanentError("it is not whole")
        manifest = SimpleNamespace(id=name, begun=BEGUN, not_covered=self.not_covered)
        units = [SimpleNamespace(unit="a unit")]
        return SimpleNamespace(
            manifest=manifest, units=units, not_replaced=("database system",), proven=self.proven
        )

    def checked_plan(self, *_: object) -> Any:
        node = SimpleNamespace(action=self.action, reasons=self.drift)
        return SimpleNamespace(blocked=self.preflight, node=lambda name: node)

    def plan(self, policy: Policy) -> RebuildPlan:
        newest = SimpleNamespace(id=f"{policy.component}-newest", begun=BEGUN, seconds=120.0)
        catalogue = SimpleNamespace(latest=lambda name: newest if self.backups else None)
        settings = SimpleNamespace(members=3, edition=self.edition)
        graph = Dag(["storage", "emqx"])
        graph.add(policy.component, ["storage"])
        graph.add("dependant", [policy.component])
        graph.add("dependant of it", ["dependant"])
        environment = environment_with(
            settings_of(components=SimpleNamespace(**dict.fromkeys(COMPONENTS, settings))),
            kube=self.kube,
            graph=graph,
            releases=SimpleNamespace(
                of=lambda name: [SimpleNamespace(name=one) for one in self.releases]
            ),
            catalogue=lambda names: {(policy.component,): catalogue}[tuple(names)],
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

    def read(environment: object, components: list[str]) -> tuple[freshness.Freshness]:
        assert len(components) == 1
        return (freshness.Freshness("", made.state, evidence=made.evidence),)

    monkeypatch.setattr(freshness, "read_freshness", read)
    monkeypatch.setattr(rebuild_plan, "plan_restore", made.plan_restore)
    monkeypatch.setattr(rebuild_plan, "checked_plan", made.checked_plan)
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
    world.action, world.drift = DRIFTED, ("redis-cluster: image 8.2 → 8.4",)
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
    assert world.asked[-1] == (SET, True)
    assert found.blocked == ()
    assert found.digest != new.digest  # an approval of one is none of the other


def test_one_that_was_broken_off_before_its_uninstall_begins_anew(world: World) -> None:
    world.broken_off(RebuildState(REBUILD, Policy("nats"), SET, DONE[:2]))
    found = world.plan(Policy("nats"))
    assert any("all steps start again" in words for words in found.warnings)
    assert any("writers cannot be blocked" in words for words in found.warnings)
    assert world.asked[-1] == ("nats-newest", True)


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


def test_a_plan_lists_what_is_replaced_and_what_waits_for_it(world: World) -> None:
    world.releases = ("redis-cluster", "redis-extra")
    world.kube.helm_release("redis-cluster", 1, "superseded")
    world.kube.helm_release("redis-cluster", 2, "deployed")
    for name in ("data-redis-cluster-0", "data-nats-0"):
        size = {"resources": {"requests": {"storage": "8Gi"}}}
        metadata = {"name": name, "namespace": NAMESPACE}
        world.kube.create({"kind": "PersistentVolumeClaim", "metadata": metadata, "spec": size})
    found = world.plan(Policy("redis"))
    assert found.releases == {"redis-cluster": "redis-cluster-1, revision 2", "redis-extra": ""}
    assert found.claims == {"data-redis-cluster-0": "8Gi"}
    assert found.units == ("a unit",)
    assert found.proof == "proven"
    assert found.dependants == ("dependant", "dependant of it")
    assert found.document().digest == found.digest
    assert len(found.digest) == 12


# ---------------------------------------------------------------------- what is in the way
def test_a_contradictory_policy_is_refused(world: World) -> None:
    with pytest.raises(ArgumentError, match="kept volumes"):
        world.plan(Policy("redis", "keep"))


def test_a_finding_of_the_preflight_that_blocks_a_deploy_blocks_a_rebuild(world: World) -> None:
    world.preflight = [Check("capacity for redis", False, "no node")]
    assert world.plan(Policy("redis")).blocked == ("capacity for redis: no node",)


@pytest.mark.parametrize("state", [freshness.NEVER, freshness.FAILING, freshness.STALE])
def test_a_backup_that_is_taken_first_needs_a_fresh_verification(state: str, world: World) -> None:
    world.state = state
    (why,) = world.plan(Policy("redis")).blocked
    assert why.startswith(f"its verification is {state}: redis needs a recent verified restore")
    assert world.plan(Policy("redis", restore=NONE, final_backup=False)).blocked == ()


def test_one_that_was_broken_off_before_its_uninstall_needs_one_too(world: World) -> None:
    world.broken_off(RebuildState(REBUILD, Policy("nats"), SET, DONE[:2]))
    world.state = freshness.STALE
    assert any("its verification is stale" in why for why in world.plan(Policy("nats")).blocked)


def test_an_engine_that_isa_cannot_restore_is_not_rebuilt_from_a_backup(world: World) -> None:
    world.edition = "enterprise"
    assert any("docs/restore-by-hand.md" in why for why in world.plan(Policy("neo4j")).blocked)
    assert world.plan(Policy("neo4j", restore=NONE)).blocked == ()


def test_a_set_of_another_component_is_refused(world: World) -> None:
    other = Policy("redis", NEW, "nats-20260101T023000Z-abcdef")
    with pytest.raises(ArgumentError, match="is not a backup of redis"):
        world.plan(other)


def test_a_named_set_that_is_not_whole_is_refused(world: World) -> None:
    world.whole = False
    with pytest.raises(PermanentError, match="it is not whole"):
        world.plan(Policy("redis", NEW, "redis-20260101T023000Z-abcdef"))


def test_without_a_backup_it_is_unknown_what_to_fence(world: World) -> None:
    world.backups = False
    found = world.plan(Policy("redis"))
    assert world.asked == []
    assert found.units == ()
    assert any("isa backup redis" in why for why in found.blocked)


# ---------------------------------------------------------------------- what it loses
def test_a_named_set_brings_back_nothing_that_was_written_since(world: World) -> None:
    named = Policy("redis", "keep", "redis-20260101T023000Z-abcdef")
    found = world.plan(named)
    assert "what was written since 2026-01-01 02:30 UTC is not restored" in found.warnings
    assert world.asked == [(named.restore, False)]
    assert not any("database system" in words for words in found.warnings)  # it is on the volumes


def test_what_no_backup_holds_is_not_restored(world: World) -> None:
    world.not_covered = ("functions",)
    assert "not restored: functions" in world.plan(Policy("redis")).warnings
    assert world.plan(Policy("redis", "keep", NONE)).warnings == ()


def test_an_empty_engine_and_a_missing_last_backup_are_warnings(world: World) -> None:
    found = world.plan(Policy("redis", NEW, NONE, final_backup=False))
    assert [words.partition(":")[0] for words in found.warnings] == [
        "it will be EMPTY", "no backup is taken first",
    ]  # fmt: skip
    assert world.plan(Policy("redis", "keep", NONE)).warnings == ()


@pytest.mark.parametrize(
    ("action", "told"), [(UPGRADE, True), (DRIFTED, True), (UNCHANGED, False), (INSTALL, False)]
)
def test_another_version_than_the_present_one_is_told_with_five_reasons(
    action: str, told: bool, world: World
) -> None:
    world.action, world.drift = action, tuple(f"reason {n}" for n in range(7))
    words = " ".join(world.plan(Policy("redis")).warnings)
    assert ("the declared version is installed" in words) is told
    assert ("reason 4" in words) is told
    assert "reason 5" not in words


def test_how_much_is_lost_is_unknown_before_the_first_verification(world: World) -> None:
    world.evidence = None
    (words,) = [one for one in world.plan(Policy("nats")).warnings if "blocked" in one]
    assert words.endswith("Stop them, or that data is lost")
    world.evidence = SimpleNamespace(seconds=0.0, sentence="")
    assert any("2 min of writes" in one for one in world.plan(Policy("nats")).warnings)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy("redis", NEW, NONE), "clients then find it empty"),
        (Policy("redis", "keep", NONE), "nothing is lost"),
        (Policy("redis"), "what is written then, before its restore starts, is replaced; then: "),
    ],
)
def test_writers_are_told_what_becomes_of_their_writes(
    policy: Policy, words: str, world: World
) -> None:
    assert f"until its gate opens; {words}" in world.plan(policy).writers


def test_one_that_goes_on_before_it_has_a_set_names_none(world: World) -> None:
    policy = Policy("redis", NEW, NONE)
    world.broken_off(RebuildState(REBUILD, policy, "", DONE))
    words = " ".join(world.plan(policy).warnings)
    assert f"continues {REBUILD}" in words
    assert "it restores" not in words
