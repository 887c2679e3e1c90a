"""A note on a Lease that cannot be read stops no backup, deletes nothing, and is reported with its cure."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pyrage
import pytest

from archive.backup.cleanup_journal import StoppedMember
from archive.backup.manifest import Capabilities, Engine
from cluster.lease import UnreadableNote, inquire
from config.sections.backups import RetentionSettings
from operations.backup import component as backup
from operations.backup.component import BackupResult, back_up
from operations.backup.retention import plan_retention
from operations.health.cluster_checks import check_rebuilds, check_restores
from operations.runner.context import RunContext
from operations.state.rebuild_state import Policy, RebuildState, unfinished_rebuild
from operations.state.restore_journal import InterruptedRestore, forget, interrupted_restore
from tests.environments import environment_with

from ..archive.test_belief import Bucket
from ..archive.test_retention import KEY, SIGNERS, a_set
from ..stored import CONTROL, Stored, environment_of, settings_of

RECIPIENT = str(pyrage.x25519.Identity.generate().to_public())
ABLE = Capabilities(conditional_put=True, checksums=True, versioning=True, object_lock=True)
HALF = '{"replacing":["all keys"],"safety":[],"restoring":"x"}'
SET, REBUILD = "redis-20260101T000500Z-0a1b2c", "rebuild-20260101t000000z-00ab"
TEXTS = ["x", f"[{HALF}]", "[" * 5_000, '{"a":1}', "[1]"]


class Sets(Bucket):
    """A bucket without evidence and waste."""

    def uploads(self, *_: object) -> list[Any]:
        return []


class World:
    """Redis, whose Lease somebody else has written to."""

    def __init__(self) -> None:
        self.kube = Stored()
        self.bucket = Sets()
        self.notes: list[Any] = []
        settings = settings_of(
            environment="test",
            backup=SimpleNamespace(
                signers=SIGNERS,
                age_recipients=(RECIPIENT,),
                object_lock_days=0,
                spool=None,
                retention=RetentionSettings(daily=1, weekly=0, monthly=0, yearly=0),
            ),
            verify=SimpleNamespace(signers=()),
        )
        self.environment = environment_with(
            settings, kube=self.kube, store=cast(Any, self.bucket), cluster_uid="uid",
            access=nullcontext, backup_targets={"redis": SimpleNamespace(back_up=lambda _, writer: taken(writer))},
        )  # fmt: skip

    def note(self, lease: str, text: str) -> None:
        with environment_of(self.kube).lease(f"isa-{lease}-redis", "somebody") as held:
            held.note(text)

    def noted(self) -> str:
        return inquire(self.kube, self.environment.settings, "isa-backup-redis")[0]

    def back_up(self, **more: Any) -> BackupResult:
        return back_up(self.environment, RunContext("test"), "redis", ABLE, slot="", **more)

    def writer(self, *arguments: Any, **_: Any) -> Any:
        self.notes.append(arguments[-1])
        return SimpleNamespace(
            cleanup=arguments[-1], artefacts=(), commit=lambda made: made, discard=lambda: None
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(backup, "valid_worker_key", lambda environment: KEY)
    monkeypatch.setattr(backup, "SetWriter", made.writer)
    return made


def taken(writer: Any) -> Any:
    """What an engine answers that holds something for us in the meantime."""
    held = StoppedMember(statefulset="neo4j-1", replicas=1)
    writer.cleanup.hold(held)
    writer.cleanup.release(held)
    return SimpleNamespace(
        needs=(),
        missing=(),
        not_covered=(),
        engine=Engine(name="Redis", version="8.2"),
        tools={},
        topology={},
        consistency=(),
        fingerprint=(),
        states={},
    )


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_backup_under_an_unreadable_note_is_taken_as_partial_until_somebody_removes_it(
    text: str, world: World
) -> None:
    world.note("backup", text)
    for _ in range(2):  # the first run writes notes of its own
        found = world.back_up()
        assert found.outcome == "partial"
        assert f"Lease {CONTROL}/isa-backup-redis cannot be read" in found.reason
        assert "annotate lease isa-backup-redis isa-cloud.io/operation-" in found.reason
    del world.kube.objects["Lease", "isa-backup-redis"]["metadata"]["annotations"]
    assert world.back_up().outcome == "complete"


def test_a_restore_that_was_broken_off_is_told_beside_what_cannot_be_read(world: World) -> None:
    world.note("backup", f'[1, {{"replacing":["all keys"],"safety":[],"restoring":"{SET}"}}]')
    reason = world.back_up().reason
    assert f"a restore of {SET} was interrupted" in reason
    assert "cannot be read" in reason


def test_what_may_hold_less_than_its_data_is_backed_up_as_partial(world: World) -> None:
    found = world.back_up(doubts=["its rebuild is in doubt"])
    assert (found.outcome, found.reason) == ("partial", "its rebuild is in doubt")


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_whether_a_restore_was_broken_off_is_unknown_and_not_denied(
    text: str, world: World
) -> None:
    world.note("backup", text)
    with pytest.raises(UnreadableNote, match="whether a restore of redis was interrupted"):
        interrupted_restore(world.kube, world.environment.settings, "redis")
    (found,) = check_restores(environment_of(world.kube))
    assert not found.check.ok
    assert "isa-backup-redis isa-cloud.io/operation-" in found.check.hint


def test_new_volumes_make_an_unreadable_note_worthless(world: World) -> None:
    world.note("backup", "[1]")
    forget(world.kube, world.environment.settings, "redis", "a rebuild")
    assert world.noted() == "[]"


STOOD = RebuildState(REBUILD, Policy("redis"), SET, ["fence", "backup", "proof", "uninstall"])


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"id":1}',
        "x",
        "[" * 5_000,
        STOOD.text().replace('"redis"', '"nats"'),
        STOOD.text().replace(REBUILD, "rebuild-x"),
        STOOD.text().replace(SET, "../x"),
        STOOD.text().replace('"uninstall"', '"everything"'),
        STOOD.text().replace('"again": 0', '"again": "0"'),
        STOOD.text().replace('"again"', '"more"'),
        STOOD.text().replace('"fresh"', '"x"'),
    ],
)
def test_how_far_a_rebuild_has_come_is_unknown_and_not_denied(text: str, world: World) -> None:
    assert text != STOOD.text()
    world.note("rebuild", text)
    with pytest.raises(UnreadableNote, match=r"how far a rebuild of redis .*isa-rebuild-redis"):
        unfinished_rebuild(world.kube, world.environment.settings, "redis")
    found = next(iter(check_rebuilds(environment_of(world.kube))))
    assert not found.check.ok
    assert "isa-rebuild-redis isa-cloud.io/operation-" in found.check.hint


def test_a_note_that_was_written_is_read(world: World) -> None:
    world.note("rebuild", STOOD.text())
    assert unfinished_rebuild(world.kube, world.environment.settings, "redis") == STOOD
    world.note("backup", f'[{{"replacing":["all keys"],"safety":["{SET}"],"restoring":"{SET}"}}]')
    assert interrupted_restore(
        world.kube, world.environment.settings, "redis"
    ) == InterruptedRestore(SET, (SET,), ("all keys",))


@pytest.mark.parametrize("lease", ["backup", "rebuild"])
def test_retention_removes_nothing_of_a_component_whose_note_cannot_be_read(
    lease: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "operations.backup.retention.find_garbage", lambda *_: SimpleNamespace(hidden=())
    )
    for day in range(3):
        made = a_set(day)
        world.bucket.put(made.own_key, made.signed(KEY))
    assert len(plan_retention(world.environment, ["redis"]).going) == 2
    world.note(lease, "x")
    assert plan_retention(world.environment, ["redis"]).going == ()


def test_the_last_backup_of_an_unfinished_rebuild_stays_whichever_comes_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "operations.backup.retention.find_garbage", lambda *_: SimpleNamespace(hidden=())
    )
    last, newer, newest = a_set(0, slot=f"{REBUILD}.0"), a_set(1), a_set(2)
    for made in (last, newer, newest):
        world.bucket.put(made.own_key, made.signed(KEY))
    policy = Policy("redis", "new", newest.id)
    world.note("rebuild", RebuildState(REBUILD, policy, newest.id, ["backup", "proof"]).text())
    assert [one.id for one in plan_retention(world.environment, ["redis"]).going] == [newer.id]
