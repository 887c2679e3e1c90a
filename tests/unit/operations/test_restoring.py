"""Whatever breaks a restore off, the same call brings it to its end, and what was there before is named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from archive.backup.cleanup_journal import CleanupJournal, StoppedMember
from cluster.lease import Lease, LeaseHeld, UnreadableNote, inquire
from errors import PermanentError, TemporaryError
from operations.environment.leases import verify_lease
from operations.health import gate
from operations.restore import component as restoring
from operations.restore import safety_backup as safety
from operations.restore.component import run_restore
from operations.restore.report import RESTORED, RestoreReport
from operations.runner.context import RunContext
from operations.state.restore_journal import InterruptedRestore, forget, interrupted_restore
from tests.environments import environment_with

from ..stored import Stored, environment_of, settings_of

SET = "neo4j-20260101T023000Z-abcdef"
UNIT = "database neo4j"
SAFETY = "neo4j-20261124T010000Z-00000"
HELD = StoppedMember(statefulset="neo4j-1", replicas=1)


def backup_of(name: str, missing: tuple[str, ...] = ()) -> Any:
    """As much of a manifest as is read here."""
    return SimpleNamespace(id=name, component="neo4j", missing=missing, artefacts=(), needs=())


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


@dataclass
class World:
    """An engine that is stopped while it is replaced, and the sets that are taken of it.

    Attributes:
        whole: whether it has something that can be backed up.
        breaks: what goes wrong while it is replaced, once.
        earlier: what the engine's file was told of the run before.
        refusals: why it would not take what comes.
        missing: why the sets that are taken of it are partial.
    """

    kube: Stored = field(default_factory=Stored)
    whole: bool = True
    breaks: BaseException | None = None
    earlier: tuple[Any, ...] = ()
    taken: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    missing: tuple[str, ...] = ()
    live: Any = None
    scratch: Any = None
    replaced: list[str] = field(default_factory=list)

    def back_up(self, *_: object, **__: object) -> Any:
        if not self.whole:
            raise TemporaryError("Neo4j: neo4j should be online and is not")
        self.taken.append(f"{SAFETY}{len(self.taken)}")
        return SimpleNamespace(id=self.taken[-1])

    def replace(
        self,
        access: object,
        served: object,
        reader: object,
        chosen: Iterable[str],
        cleanup: CleanupJournal,
    ) -> list[str]:
        self.replaced = list(chosen)
        self.earlier = cleanup.earlier(StoppedMember)
        cleanup.hold(HELD)
        with cleanup.replacing(chosen):
            self.whole = False
            if self.breaks:
                broken, self.breaks = self.breaks, None
                raise broken
        self.whole = True
        for held in (HELD, *self.earlier):
            cleanup.release(held)
        return []

    @property
    def left(self) -> InterruptedRestore | None:
        return interrupted_restore(self.kube, environment_of(self.kube).settings, "neo4j")

    def run(self, *, safety: bool = True, chosen: tuple[str, ...] = (UNIT,)) -> RestoreReport:
        manifest = backup_of(SET)
        plan = SimpleNamespace(
            manifest=manifest, earlier=(), units=[SimpleNamespace(unit=unit) for unit in chosen]
        )
        settings = settings_of(
            environment="test",
            backup=SimpleNamespace(signers=()),
            verify=SimpleNamespace(signers=()),
        )
        return run_restore(
            environment_with(
                settings,
                kube=self.kube,
                store=None,
                store_credentials=dict,
                access=nullcontext,
                backup_chain=lambda name: (backup_of(name, self.missing), ()),
                components={"neo4j": SimpleNamespace(name="neo4j", live=self.live)},
                backup_targets={"neo4j": SimpleNamespace(restore=self.scratch)},
            ),
            RunContext("test"),
            "",
            cast(Any, plan),
            safety=safety,
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    made.live = SimpleNamespace(
        scratch=False,
        beside=False,
        units=lambda _: {},
        fence=lambda *_: nullcontext("fenced"),
        replace=made.replace,
        can_take=lambda *_: made.refusals,
        measure=lambda *_: [],
        wanted=lambda *_: [],
    )
    monkeypatch.setattr(safety, "check_store", lambda environment: None)
    monkeypatch.setattr(safety, "back_up", made.back_up)
    monkeypatch.setattr(gate, "wait", lambda *_, **__: None)
    return made


def test_a_restore_that_ends_well_leaves_no_word(world: World) -> None:
    assert world.run().outcome == RESTORED
    assert world.left is None


@pytest.mark.parametrize("end", [Killed(), TemporaryError("the store is away")])
def test_what_was_half_replaced_is_replaced_by_the_same_call(
    end: BaseException, world: World
) -> None:
    world.breaks = end
    if isinstance(end, Killed):
        with pytest.raises(Killed):
            world.run()
    else:
        assert f"isa restore {SAFETY}0" in world.run().reason
    assert world.left == InterruptedRestore(SET, (f"{SAFETY}0",), (UNIT,))
    done = world.run()  # there is nothing that could be backed up
    assert (done.outcome, done.safety) == (RESTORED, f"{SAFETY}0")
    assert world.earlier == (HELD,)
    assert world.left is None


def test_a_half_replaced_engine_that_can_be_backed_up_is_and_the_first_set_is_named(
    world: World,
) -> None:
    world.breaks = Killed()
    with pytest.raises(Killed):
        world.run()
    world.whole = True
    done = world.run()
    assert (done.outcome, done.safety) == (RESTORED, f"{SAFETY}1")
    assert done.kept == [f"the data from before the interrupted run is in {SAFETY}0"]


def test_however_often_it_is_broken_off_the_first_safety_set_is_what_was_there_before(
    world: World,
) -> None:
    for _ in range(2):
        world.breaks = Killed()
        with pytest.raises(Killed):
            world.run()
        world.whole = True  # it can be backed up, and holds next to nothing
    assert world.left == InterruptedRestore(SET, (f"{SAFETY}0", f"{SAFETY}1"), (UNIT,))
    assert f"isa restore {SAFETY}0" in world.left.words


def test_a_repeated_restore_that_fails_names_the_safety_set_of_the_first_attempt(
    world: World,
) -> None:
    for _ in range(2):
        world.breaks = TemporaryError("the store is away")
        report = world.run()
        assert f"isa restore {SAFETY}0" in report.reason
        world.whole = True  # it can be backed up, and holds next to nothing
    assert report.safety == f"{SAFETY}1"
    assert f"isa restore {SAFETY}1" not in report.reason


def test_a_repeated_restore_after_one_without_a_safety_backup_names_none(world: World) -> None:
    world.breaks = TemporaryError("the store is away")
    world.run(safety=False)
    world.whole, world.breaks = True, TemporaryError("the store is away")
    report = world.run()
    assert report.safety == f"{SAFETY}0"
    assert "The first attempt took no safety backup" in report.reason


def test_a_failed_restore_of_another_unit_names_its_own_safety_set(world: World) -> None:
    world.breaks = TemporaryError("the store is away")
    world.run()
    world.whole, world.breaks = True, TemporaryError("the store is away")
    report = world.run(chosen=("database other",))
    assert f"isa restore {SAFETY}1" in report.reason


def test_a_restore_of_another_unit_makes_nothing_whole_that_was_broken_off(world: World) -> None:
    world.breaks = Killed()
    with pytest.raises(Killed):
        world.run()
    world.whole = True
    assert world.run(chosen=("database other",)).outcome == RESTORED
    assert world.left == InterruptedRestore(SET, (f"{SAFETY}0",), (UNIT,))
    assert world.run(chosen=("database other", UNIT)).outcome == RESTORED
    assert world.left is None


def test_what_was_half_replaced_goes_with_the_volumes_that_it_is_on(world: World) -> None:
    world.breaks = Killed()
    with pytest.raises(Killed):
        world.run()
    forget(world.kube, environment_of(world.kube).settings, "neo4j", "a rebuild")
    assert world.left is None


@pytest.mark.parametrize("error", [OSError("no space left"), KeyError("config")])
def test_whatever_goes_wrong_while_it_is_replaced_the_way_back_is_told(
    error: Exception, world: World
) -> None:
    world.breaks = error
    report = world.run()
    assert report.outcome == "failed"
    assert f"isa restore {SAFETY}0" in report.reason


def test_nothing_is_fenced_or_replaced_that_the_engine_would_refuse(world: World) -> None:
    world.refusals = [f"{UNIT}: larger than the live limit"]
    world.live.fence = lambda *_: pytest.fail("it was fenced")
    with pytest.raises(PermanentError, match="larger than the live limit"):
        world.run()
    assert world.whole and world.taken == []


def test_a_unit_that_the_safety_backup_would_not_bring_back_is_left_alone(
    world: World,
) -> None:
    other = "database other"
    world.missing = (f"{other}: encrypted by its clients",)
    report = world.run(chosen=(UNIT, other))
    assert (report.outcome, set(report.not_replaced)) == ("different", {other})
    assert "encrypted by its clients" in report.reason
    assert world.replaced == [UNIT]


def test_without_a_run_that_was_broken_off_no_safety_backup_is_no_restore(world: World) -> None:
    world.whole = False
    with pytest.raises(TemporaryError, match="should be online"):
        world.run()
    assert world.left is None


def test_nothing_is_replaced_once_somebody_else_has_the_lease(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(self: Lease) -> None:
        if self.name == "isa-neo4j" and world.taken:  # while the safety backup was made
            raise PermanentError("the lease isa-neo4j was taken by another run")

    monkeypatch.setattr(Lease, "ensure", taken)
    with pytest.raises(PermanentError, match="taken by another run"):
        world.run()
    assert world.whole
    assert world.left is None


def test_a_first_run_without_a_safety_backup_is_gone_on_with(world: World) -> None:
    world.breaks = PermanentError("the dump is not what was stored")
    assert world.run(safety=False).outcome == "failed"
    assert world.run().outcome == RESTORED
    assert world.taken == []


@pytest.fixture
def serving(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """One whose set is copied from scratch engines."""

    @contextmanager
    def engines(*_: object) -> Iterator[Any]:
        settings = environment_of(world.kube).settings
        assert inquire(world.kube, settings, verify_lease("neo4j"))[1]  # a proof sweeps under it
        yield SimpleNamespace(access=None, at={})

    world.scratch = SimpleNamespace(scratch=lambda *_: (), ask=None, load=lambda *_: None)
    monkeypatch.setattr(restoring, "engines", engines)
    world.live.scratch = True
    return world


def test_no_proof_sweeps_the_scratch_engines_that_a_restore_copies_from(serving: World) -> None:
    assert serving.run().outcome == RESTORED


def test_a_restore_that_needs_scratch_engines_waits_for_a_proof_of_the_component(
    serving: World,
) -> None:
    where = environment_of(serving.kube).settings.kubernetes.control_namespace
    name = verify_lease("neo4j")
    proof = Lease(serving.kube, where, name, purpose="a proof", holder="another-host/1/1")
    with proof, pytest.raises(LeaseHeld, match="a proof"):
        serving.run()
    assert serving.taken == []  # nothing was fenced or replaced


def test_a_restore_goes_on_behind_a_safety_backup_where_an_earlier_note_cannot_be_read(
    world: World,
) -> None:
    with environment_of(world.kube).lease("isa-backup-neo4j", "somebody") as lease:
        lease.note("x")
    assert (world.run().outcome, world.taken) == (RESTORED, [f"{SAFETY}0"])
    with pytest.raises(UnreadableNote):  # it stays until somebody has looked
        _ = world.left
    world.whole = False
    with pytest.raises(TemporaryError, match="should be online"):
        world.run()
