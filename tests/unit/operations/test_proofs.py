"""A run of proofs: the sets of a component one after another, and one that fails stops no other."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.command import Cancelled
from cluster.dag import Dag
from errors import ArgumentError, PermanentError, TemporaryError
from operations.runner.context import RunContext
from operations.runner.progress import NodeProgress
from operations.runner.walk import Start, Work
from operations.verify import proofs
from operations.verify.proofs import ProofLine, ProofReport, ProofResult, choose, run_proofs

OLD, NEW = "redis-20261101T010000Z-000001", "redis-20261102T010000Z-000002"
NATS = "nats-20261101T010000Z-000003"


class World:
    """Sets, and what their proofs find.

    Attributes:
        verdicts: id → verdict.
        fails: id → what is raised, one for each attempt.
        proven: ids in order.
        lines: tables that were published.
        attempts: how often a component is begun.
    """

    def __init__(self) -> None:
        self.verdicts: dict[str, str] = {}
        self.fails: dict[str, list[Exception]] = {}
        self.proven: list[str] = []
        self.lines: list[list[NodeProgress]] = []
        self.attempts = 1

    def prove(self, environment: object, context: RunContext, identity: str, backup: str) -> Any:
        assert (identity, context.who) == ("the pool's key", "test")
        self.proven.append(backup)
        context.tell("restoring")
        if self.fails.get(backup):
            raise self.fails[backup].pop(0)
        verdict = self.verdicts.get(backup, "pass")
        return SimpleNamespace(
            set=backup, component=backup.partition("-")[0], verdict=verdict, level="L4", compared=3,
            seconds=2.0, sentence=f"it is a {verdict}", scratch="Redis 8",
        )  # fmt: skip

    def inline(self, graph: Dag, work: Work) -> Start:
        def begin(node: str, done: Callable[[Any], None]) -> None:
            for attempt in range(self.attempts):
                try:
                    return done(work(node))
                except TemporaryError as exc:
                    if attempt == self.attempts - 1:
                        done(exc)
                except Exception as exc:
                    return done(exc)
            return None

        return begin

    def run(self, *backups: str) -> ProofReport:
        environment: Any = SimpleNamespace(
            settings=SimpleNamespace(verify=SimpleNamespace(max_parallel=2)),
            verify_identity=lambda: "the pool's key",
        )
        context = RunContext("test", publish=lambda lines: self.lines.append([*lines]))
        return run_proofs(environment, context, backups, start=self.inline)

    @property
    def table(self) -> dict[str, ProofLine]:
        return {line.name: cast(ProofLine, line) for line in self.lines[-1]}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(proofs, "prove", made.prove)
    return made


def test_every_set_has_its_result_in_the_order_that_was_asked_for(world: World) -> None:
    report = world.run(NEW, NATS, OLD)
    assert [one.backup for one in report.proofs] == [NEW, NATS, OLD]
    assert report.proofs[0] == ProofResult(
        NEW, "redis", "pass", "L4", 3, 2.0, "it is a pass", "Redis 8"
    )
    assert report.state == "completed"
    assert report.summary.startswith("3 pass in ")
    assert [one for one in world.proven if one != NATS] == [NEW, OLD]
    line = world.table[NATS]
    assert (line.outcome, line.note, line.seconds) == ("pass", "it is a pass", 2.0)
    assert (line.level, line.compared, line.scratch) == ("L4", 3, "Redis 8")


@pytest.mark.parametrize(
    ("verdict", "state"), [("pass", "completed"), ("partial", "completed"), ("fail", "failed")]
)
def test_a_run_has_failed_if_a_set_has(verdict: str, state: str, world: World) -> None:
    world.verdicts = {OLD: verdict}
    report = world.run(OLD, NEW)
    assert report.state == state
    assert (f"{OLD}: it is a fail" in report.summary) == (verdict == "fail")


def test_nothing_to_prove_is_said() -> None:
    report = ProofReport(1.0, ())
    assert (report.state, report.summary) == ("completed", "nothing to verify in 1.0 s")


def test_a_set_without_a_verdict_stops_no_other_and_fails_the_run(world: World) -> None:
    world.fails = {NEW: [PermanentError("no image")]}
    report = world.run(NEW, OLD, NATS)
    found = {one.backup: one for one in report.proofs}
    assert (found[NEW].verdict, found[NEW].reason) == ("error", "no image")
    assert found[NEW].component == "redis"
    assert found[NEW].seconds >= 0
    assert found[OLD].verdict == found[NATS].verdict == "pass"
    assert report.state == "failed"
    assert f"{NEW}: no image" in report.summary


def test_another_attempt_proves_only_what_has_no_verdict(world: World) -> None:
    world.fails, world.attempts = {NEW: [TemporaryError("the store is away")]}, 2
    assert world.run(NEW, OLD).state == "completed"
    assert world.proven == [NEW, OLD, NEW]


def test_of_several_failures_the_first_is_the_components(world: World) -> None:
    world.fails = {NEW: [PermanentError("first")], OLD: [PermanentError("second")]}
    assert {one.reason for one in world.run(NEW, OLD).proofs} == {"first"}
    assert "first" in str([line.note for lines in world.lines for line in lines])
    assert "second" in str([line.note for lines in world.lines for line in lines])


def test_a_cancelled_run_goes_on_with_no_other_set(world: World) -> None:
    world.fails = {NEW: [Cancelled("cancelled")]}
    world.run(NEW, OLD)
    assert world.proven == [NEW]


# ---------------------------------------------------------------------- which sets
def chosen(*backups: str, which: str = "latest", components: tuple[str, ...] = ()) -> Any:
    asked: list[tuple[str, ...]] = []

    def catalogue(names: tuple[str, ...]) -> Any:
        asked.append(names)
        broken = {f"test/{i.partition('-')[0]}/{i}/manifest.json": "?" for i in (OLD, NEW, NATS)}
        verdict = {NEW: "pass"}
        return SimpleNamespace(sets=(), broken=broken, verdict=lambda name: verdict.get(name, ""))

    found = choose(cast(Any, SimpleNamespace(catalogue=catalogue)), backups, components, which, "w")
    return found, asked


def test_named_sets_are_taken_once_and_nothing_is_looked_up() -> None:
    assert chosen(OLD, NATS, OLD) == ((OLD, NATS), [])


def test_what_is_no_id_is_refused_with_all_that_are_none() -> None:
    with pytest.raises(ArgumentError) as refused:
        chosen(OLD, "moon", "sun")
    assert [str(fault) for fault in refused.value.faults] == [
        str(fault) for fault in refused.value.faults if "moon" in str(fault) or "sun" in str(fault)
    ]
    assert len(refused.value.faults) == 2


@pytest.mark.parametrize(
    ("which", "sets"),
    [
        ("latest", {NEW, NATS}),
        ("due", {NATS}),
        ("all", {OLD, NEW, NATS}),
        ("sample", {OLD}),
    ],
)
def test_sets_are_chosen_by_kind(which: str, sets: set[str]) -> None:
    found, (names,) = chosen(which=which, components=("redis", "nats"))
    assert set(found) == sets
    assert set(names) == {"redis", "nats"}
