"""Whatever breaks a rebuild off, what was written comes back with the set or is kept, and whoever goes on is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from archive.backup.manifest import Manifest
from cluster.dag import Dag
from errors import PermanentError, TemporaryError
from operations.backup.component import COMPLETE, PARTIAL, BackupResult
from operations.environment.environment import Environment
from operations.rebuild.actions import ComponentActions
from operations.rebuild.plan import RebuildPlan
from operations.rebuild.rebuild import run_rebuild
from operations.rebuild.report import RebuildReport
from operations.restore.report import DIFFERENT, RESTORED, RestoreReport
from operations.runner.context import RunContext
from operations.runner.walk import INSTALLED, UNCHANGED, Start, Work
from operations.state.rebuild_state import KEEP, NEW, Policy, RebuildState, unfinished_rebuild
from tests.environments import environment_with

from ..archive.test_retention import a_set
from ..stored import Stored, environment_of, settings_of

WORKLOADS = (SimpleNamespace(kind="StatefulSet", name="redis"),)
OLD = "redis-20251201T000500Z-0a1b2c"
PLAN = RebuildPlan(
    Policy("redis"), {"redis-cluster": "redis-cluster-13.0.4, revision 3"}, {"data-redis-0": "8Gi"}, ("all keys",),
    "restore proven at L4", "they cannot write", (), (), (),
)  # fmt: skip


@dataclass
class World:
    """An engine that counts what is written to it, and everything that a rebuild does with it."""

    kube: Stored = field(default_factory=Stored)
    written: int = 1
    fenced: bool = False
    sets: dict[str, int] = field(default_factory=dict)  # id → what had been written
    slots: list[str] = field(default_factory=list)
    made: list[Manifest] = field(default_factory=list)
    forged: dict[str, str] = field(default_factory=dict)  # id → verdict that the evidence has now
    there: bool = True
    units: tuple[str, ...] = ("all keys",)
    done: list[str] = field(default_factory=list)
    breaks: dict[str, Exception] = field(default_factory=dict)  # what goes wrong, once each
    safety: bool | None = None
    outcome: str = RESTORED
    refusals: list[str] = field(default_factory=list)
    backup_outcome: str = COMPLETE
    verdict: str = "pass"

    def __post_init__(self) -> None:
        self.live = SimpleNamespace(
            fence=self.fence, fences=True, can_take=lambda *_: self.refusals
        )

    def step(self, name: str) -> None:
        self.done.append(name)
        if name in self.breaks:
            raise self.breaks.pop(name)

    @contextmanager
    def fence(self, access: object, units: Iterable[str]) -> Iterator[str]:
        self.step("fence")
        self.fenced = True
        try:
            yield "fenced"
        finally:
            if "open" in self.breaks:
                raise self.breaks.pop("open")
            self.fenced = False

    def back_up(self, slot: str) -> BackupResult:
        self.step("backup")
        assert slot not in self.slots
        self.slots.append(slot)
        name = f"redis-20260101T02300{len(self.sets)}Z-abcdef"
        self.sets[name] = self.written
        self.made.append(a_set(len(self.made), id=name, slot=slot))
        return BackupResult("redis", self.backup_outcome, name, reason="shard 2 is missing")

    def prove(self) -> Any:
        self.step("proof")
        return SimpleNamespace(verdict=self.verdict, sentence="proven", reason="no extension pg_x")

    def uninstall(self) -> None:
        self.step("uninstall")
        self.there = False

    def put_aside(self) -> list[Any]:
        self.step("volumes")
        for claim in self.kube.claims:
            self.kube.delete("v1", "PersistentVolumeClaim", claim)
        return []

    def install(self) -> str:
        self.step("install")
        outcome = UNCHANGED if self.there else INSTALLED
        self.there = True
        return outcome

    def run_restore(self, safety: bool) -> RestoreReport:
        self.safety = safety
        self.step("restore")
        return RestoreReport("", "redis", self.outcome, reason="clients wrote")

    def catalogue(self, names: Iterable[str] = ()) -> Any:
        verdicts = {one.id: self.forged.get(one.id, self.verdict) for one in self.made}
        return SimpleNamespace(
            of=lambda component: tuple(self.made),
            verdict=lambda identity: verdicts.get(identity, ""),
            gaps={},
        )

    def claim_of(self, **change: Any) -> None:
        """Somebody changes what the Lease says of the rebuild."""
        left = self.unfinished
        assert left is not None
        with environment_of(self.kube).lease("isa-rebuild-redis", "somebody") as lease:
            lease.note(replace(left, **change).text())

    @property
    def unfinished(self) -> RebuildState | None:
        return unfinished_rebuild(self.kube, environment_of(self.kube).settings, "redis")

    def run(self, policy: Policy = PLAN.policy) -> RebuildReport:
        environment = environment_with(
            settings_of(),
            kube=self.kube,
            store=None,
            catalogue=self.catalogue,
            access=nullcontext,
            verify_identity=str,
            components={"redis": SimpleNamespace(live=self.live, workloads=lambda _: WORKLOADS)},
        )
        return run_rebuild(
            environment,
            RunContext("test"),
            replace(PLAN, policy=policy),
            start=inline,
            actions=Actions(self, environment, new_engine=policy.volumes == NEW),
        )


def inline(graph: Dag, work: Work) -> Start:
    def begin(node: str, done: Callable[[Any], None]) -> None:
        try:
            done(work(node))
        except Exception as exc:
            done(exc)
        except BaseException as exc:  # in a run it comes to the one who waits, and the node ends
            done(exc)
            raise

    return begin


class Actions(ComponentActions):
    """Those of a rebuild, where the engine, helm, backups and verifications are the world's."""

    def __init__(self, world: World, environment: Environment, *, new_engine: bool) -> None:
        super().__init__(environment, "redis", new_engine=new_engine)
        self.world = world

    def back_up(self, context: object, slot: str) -> BackupResult:
        return self.world.back_up(slot)

    def verify(self, context: object, backup: str) -> Any:
        return self.world.prove()

    def uninstall(self, context: object) -> None:
        self.world.uninstall()

    def put_volumes_aside(self, context: object, rebuild: str) -> list[Any]:
        return self.world.put_aside()

    def install(self, context: object) -> str:
        return self.world.install()

    def restore(self, context: object, backup: str, *, safety: bool) -> RestoreReport:
        return self.world.run_restore(safety)

    def restore_plan(self, backup: str) -> Any:
        units = [SimpleNamespace(unit=one) for one in self.world.units]
        return SimpleNamespace(manifest=SimpleNamespace(id=backup), earlier=(), units=units)


@pytest.fixture
def world() -> World:
    made = World()
    made.kube.claim("data-redis-0", "old-0")
    return made


def test_what_was_just_installed_is_replaced_without_a_backup_of_it(world: World) -> None:
    found = world.run()
    assert found.state == "completed", found.summary
    assert world.done == ["fence", "backup", "proof", "uninstall", "volumes", "install", "restore"]
    assert world.safety is False


def test_what_was_written_after_a_failed_uninstall_comes_back_too(world: World) -> None:
    world.breaks["uninstall"] = PermanentError("helm: forbidden")
    found = world.run()
    assert found.state == "failed"
    assert not world.fenced
    world.written += 1  # by a client, for the engine serves
    found = world.run()
    assert found.state == "completed", found.summary
    assert world.sets[found.set] == world.written
    assert world.done.count("fence") == world.done.count("proof") == 2


@pytest.mark.parametrize("step", ["volumes", "install", "restore"])
def test_what_was_written_to_the_new_engine_is_backed_up_by_whoever_goes_on(
    step: str, world: World
) -> None:
    world.breaks[step] = PermanentError("it broke")
    first = world.run()
    assert first.state == "failed"
    assert "continues here" in first.summary
    world.there = True  # a deploy has brought it up, or the rebuild had done so
    found = world.run()
    assert found.state == "completed", found.summary
    assert found.set == first.set
    assert world.done.count("backup") == 1
    assert world.done[-2:] == ["install", "restore"]  # it is in order before it is replaced
    assert world.safety is True


def test_what_was_replaced_and_written_to_since_is_no_empty_engine(world: World) -> None:
    world.outcome = DIFFERENT
    assert "clients wrote" in world.run().summary
    left = world.unfinished
    assert left is not None
    assert left.replaced
    assert not left.without_data


def test_what_stays_on_its_volumes_is_backed_up_before_a_set_takes_its_place(world: World) -> None:
    found = world.run(Policy("redis", KEEP, OLD))
    assert found.state == "completed", found.summary
    assert found.set == OLD
    assert world.safety is True


def test_what_was_not_fenced_is_not_uninstalled(world: World) -> None:
    world.units = ("all keys", "database of today")
    found = world.run()
    assert found.state == "failed"
    assert "database of today" in found.summary
    assert "Nothing was changed" in found.summary
    assert "uninstall" not in world.done
    assert not world.fenced


def test_what_an_engine_without_a_fence_has_lost_is_told(world: World) -> None:
    world.live.fences = False
    told = {step.name: step.reason for step in world.run().steps}
    assert "written since 02:30:00 UTC is only on the old volumes" in told["uninstall"]


def test_volumes_are_kept_before_helm_removes_anything(world: World) -> None:
    world.breaks["uninstall"] = TemporaryError("the API server is away")
    world.run()
    assert world.kube.volumes == {"old-0": "Retain"}
    assert world.kube.claims == {"data-redis-0": "old-0"}


def test_a_volume_that_is_gone_stops_it_while_nothing_has_changed(world: World) -> None:
    del world.kube.objects["PersistentVolume", "old-0"]
    found = world.run()
    assert "old-0" in found.summary
    assert "Nothing was changed" in found.summary
    assert "uninstall" not in world.done


def test_a_fence_that_cannot_be_opened_is_told_with_what_had_failed(world: World) -> None:
    world.breaks |= {"proof": PermanentError("it differs"), "open": OSError("redis-3 is away")}
    found = world.run()
    assert "it differs" in found.summary
    assert "WRITES ARE STILL BLOCKED" in found.summary
    assert "redis-3 is away" in found.summary
    assert world.unfinished is not None  # for the doctor, and for rebuild undo
    assert world.run().state == "completed"
    assert world.unfinished is None


def test_what_failed_while_nothing_had_changed_leaves_no_trace(world: World) -> None:
    world.breaks["proof"] = PermanentError("it differs")
    assert world.run().state == "failed"
    assert world.unfinished is None


def test_a_rebuild_that_was_killed_behind_its_fence_is_seen(world: World) -> None:
    world.breaks["backup"] = cast(Any, KeyboardInterrupt())
    world.breaks["open"] = OSError("the process is gone")  # as good as killed
    with pytest.raises(KeyboardInterrupt):
        world.run()
    assert world.fenced
    assert world.unfinished is not None
    assert not world.unfinished.changed


def test_nothing_is_uninstalled_that_would_not_take_its_data_back(world: World) -> None:
    world.refusals = ["all keys: a key larger than proto-max-bulk-len"]
    report = world.run()
    assert "larger than proto-max-bulk-len" in str(report.steps)
    assert world.done == ["fence", "backup", "proof"]
    assert world.there


def test_nothing_is_uninstalled_after_a_partial_backup(world: World) -> None:
    world.backup_outcome = PARTIAL
    report = world.run()
    assert report.state == "failed"
    assert "is partial: shard 2 is missing" in report.summary
    assert "Nothing was changed" in report.summary
    assert world.done == ["fence", "backup"]
    assert world.there
    assert not world.fenced


@pytest.mark.parametrize("verdict", ["partial", "fail", "error"])
def test_nothing_is_uninstalled_unless_the_backup_passed_its_proof(
    verdict: str, world: World
) -> None:
    world.verdict = verdict
    report = world.run()
    assert report.state == "failed"
    assert f"is {verdict}: no extension pg_x" in report.summary
    assert "Nothing was changed" in report.summary
    assert world.done == ["fence", "backup", "proof"]
    assert world.there
    assert not world.fenced


# ---------------------------------------------------------------------- a state that somebody has changed
def broken_at(world: World, step: str, policy: Policy = PLAN.policy) -> None:
    world.breaks[step] = PermanentError("it broke")
    assert world.run(policy).state == "failed"
    world.done.clear()


GONE = ["fence", "backup", "proof", "uninstall"]


def test_a_rebuild_that_was_not_begun_skips_neither_its_backup_nor_its_proof(world: World) -> None:
    with environment_of(world.kube).lease("isa-rebuild-redis", "somebody") as lease:
        lease.note(RebuildState("rebuild-20260101t000000z-00ab", PLAN.policy, OLD, GONE).text())
    with pytest.raises(PermanentError, match="no complete backup of this attempt"):
        world.run()
    assert world.done == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"set": OLD}, f"its backup is .*, not {OLD}"),
        ({"set": ""}, "its backup is .*, not none"),
        ({"again": 7}, "no complete backup of this attempt"),
        ({"id": "rebuild-20251201t000000z-00ab"}, "no complete backup of this attempt"),
    ],
)
def test_another_backup_than_that_of_the_rebuild_does_not_come_back(
    change: dict[str, Any], words: str, world: World
) -> None:
    broken_at(world, "install")
    world.made.insert(0, a_set(-31, id=OLD, slot="2025-12-01"))
    world.claim_of(**change)
    with pytest.raises(PermanentError, match=words):
        world.run()
    assert world.done == []


@pytest.mark.parametrize("verdict", ["fail", "partial", ""])
def test_a_rebuild_goes_on_only_while_the_evidence_says_that_its_backup_is_proven(
    verdict: str, world: World
) -> None:
    broken_at(world, "volumes")
    (backup,) = world.sets
    world.forged[backup] = verdict
    with pytest.raises(PermanentError, match=f"isa verify {backup}.*rebuild undo"):
        world.run()
    assert world.done == []
    world.forged[backup] = "pass"
    assert world.run().state == "completed"


def test_an_earlier_attempts_backup_does_not_stand_for_the_last_ones(world: World) -> None:
    broken_at(world, "uninstall")
    broken_at(world, "install")
    assert len(world.sets) == 2
    world.claim_of(again=0, set=min(world.sets))
    with pytest.raises(PermanentError, match="no complete backup of this attempt"):
        world.run()


def test_the_set_that_was_approved_comes_back_and_no_other(world: World) -> None:
    policy = Policy("redis", "new", OLD, final_backup=False)
    world.made.append(a_set(0, id=OLD))
    broken_at(world, "install", policy)
    world.claim_of(set="redis-20251101T000500Z-0a1b2c")
    with pytest.raises(PermanentError, match=f"{OLD} was approved, not redis-20251101"):
        world.run(policy)
    world.claim_of(set=OLD)
    assert world.run(policy).state == "completed"


def test_volumes_that_are_in_place_were_not_put_aside(world: World) -> None:
    broken_at(world, "volumes")
    world.claim_of(done=[*GONE, "volumes"])
    with pytest.raises(PermanentError, match="volume old-0 is still in its place"):
        world.run()


def test_what_was_installed_on_old_volumes_is_backed_up_before_it_is_replaced(
    world: World,
) -> None:
    broken_at(world, "install")
    world.kube.claim("data-redis-0", "another-0")
    assert world.run().state == "completed"
    assert world.safety is True


def test_an_engine_is_asked_whatever_the_state_says_whether_it_takes_its_data_back(
    world: World,
) -> None:
    broken_at(world, "uninstall")
    world.refusals = ["all keys: a key larger than proto-max-bulk-len"]
    assert "larger than proto-max-bulk-len" in str(world.run().steps)
    assert world.done == ["fence", "backup", "proof"]
