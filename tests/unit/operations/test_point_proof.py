"""The verdict on a point between two backups: what it is about, and what it says of the backup that it begins with."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pyrage
import pytest

from archive.backup.manifest import Measure
from archive.backup.reader import Damaged
from archive.evidence.verdicts import (
    Difference,
    Evidence,
    proof_of,
    read_evidence,
    signer_of,
    write_evidence,
)
from archive.wal.coverage import NotCovered
from archive.wal.names import WalObject
from archive.wal.target import RecoveryTarget
from components.base import Recovered, Restore, Scratch
from errors import ArgumentError, TemporaryError
from operations.environment.environment import Environment
from operations.runner.context import RunContext
from operations.verify import trial
from operations.verify.point import ENDED_EARLY, prove_point
from operations.verify.proofs import choose
from operations.verify.scratch import Unrestorable
from tests.environments import environment_with

from ..archive.test_retention import KEY, SIGNERS
from ..archive.wal.history import NOON, SYSTEM
from ..archive.wal.test_point import a_base
from ..buckets import Bucket
from ..stored import Stored, settings_of
from .test_proof import raising

POOL = pyrage.x25519.Identity.generate()
IDENTITY = str(POOL)
SEGMENT = 16 << 20
AT = NOON + timedelta(seconds=30)
FILES = Scratch("files", "postgresql", "postgresql", ("postgres",), 5432, placed=("base.tar",))
REACHED = Recovered("0/1000100", AT, AT + timedelta(seconds=1), databases=3, checked=700)


def a_segment(start: int, before: str, through: str, second: int) -> WalObject:
    covers = NOON + timedelta(seconds=second)
    return WalObject(
        "test", SYSTEM, 1, start, start + SEGMENT, before, through, covers, covers
    )  # fmt: skip


class World:
    """A base backup and two segments of WAL; and a scratch engine that recovers to a point.

    Attributes:
        recovered: what the engine says of itself.
        starts: what happens when it starts.
        asked: points that it was to recover to.
        dumped: what was said of the engines that were backed up.
        enabled: whether the settings say that WAL is stored.
    """

    def __init__(self) -> None:
        self.kube, self.bucket = Stored(), Bucket(NOON)
        self.recovered = REACHED
        self.starts: Callable[[], None] = lambda: None
        self.asked: list[Any] = []
        self.dumped: list[Recovered] = []
        self.enabled = True
        manifest = a_base(3, SEGMENT + 0x100, 0, recipients=(str(POOL.to_public()),))
        self.manifest = manifest
        self.bucket.objects[manifest.own_key] = manifest.signed(KEY)
        self.bucket.objects[manifest.key(manifest.artefacts[0])] = b"1"
        segments = (
            a_segment(SEGMENT, "", "aa" * 32, 20), a_segment(2 * SEGMENT, "aa" * 32, "bb" * 32, 60),
        )  # fmt: skip
        self.wal = [one.signed(KEY) for one in segments]
        self.bucket.objects |= dict.fromkeys(self.wal, b"wal")
        for name, values in {
            "store-key": {"access-key": "a", "secret-key": "b"},
            "verify-identity": {"identity": f"{IDENTITY}\n"},
        }.items():
            data = {key: b64encode(value.encode()).decode() for key, value in values.items()}
            self.kube.objects["Secret", name] = {"metadata": {"name": name}, "data": data}

    @property
    def environment(self) -> Environment:
        settings = settings_of(
            environment="test",
            backup=SimpleNamespace(signers=SIGNERS),
            wal=SimpleNamespace(postgresql=SimpleNamespace(enabled=self.enabled)),
            verify=SimpleNamespace(
                signers=(signer_of(IDENTITY),), identity_secret="verify-identity"
            ),
            storage=SimpleNamespace(object=SimpleNamespace(credentials_secret="store-key")),
        )
        target = SimpleNamespace(point=SimpleNamespace(restore_to=self.restore_to, dump=self.dump))
        return environment_with(
            settings, kube=self.kube, store=cast(Any, self.bucket), cluster_uid="uid",
            backup_targets={"postgresql": target},
        )  # fmt: skip

    def dump(self, *arguments: Any) -> None:
        self.dumped.append(arguments[-1])

    def restore_to(
        self, point: Any, done: Callable[[Recovered], None], *, check: bool = True
    ) -> Restore:
        self.asked.append(point)

        def measure(*_: Any) -> Mapping[str, list[Measure]]:
            done(self.recovered)
            return {}

        return Restore(
            scratch=lambda *_: (FILES,), place=lambda *_: None, ask=lambda *_: "PostgreSQL 18.1",
            load=lambda *_: None, measure=measure, reads_all=False,
        )  # fmt: skip

    @contextmanager
    def engines(self, *_: Any) -> Iterator[Any]:
        self.starts()
        yield SimpleNamespace(access=None, at={}, version="PostgreSQL 18.1", check=lambda: None)

    def nightly(self) -> tuple[str, ...]:
        """What a night verifies, without the backup itself."""
        return choose(self.environment, (), ("postgresql",), "latest")[1:]

    def choose(self, at: str, *components: str) -> tuple[str, ...]:
        return choose(self.environment, (), components or ("postgresql",), "latest", at=at)

    def prove(self) -> Evidence:
        (name,) = self.choose(RecoveryTarget(time=AT).text)
        return prove_point(self.environment, RunContext("test"), IDENTITY, name)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(trial, "engines", made.engines)
    return made


def test_a_point_that_was_reached_passes_at_the_highest_level(world: World) -> None:
    said = world.prove()
    assert (said.verdict, said.level, said.reason) == ("pass", "L4", "")
    assert (said.set, said.point) == (world.manifest.id, "2026-11-29T12:00:30Z")
    assert "stopped before the commit of 2026-11-29 12:00:31" in said.reached
    assert "700 tables and indexes are sound" in said.sentence
    (point,) = world.asked
    assert [one.start for one in point.line.objects] == [SEGMENT, 2 * SEGMENT]


def test_the_verdict_on_a_point_says_nothing_of_its_backup(world: World) -> None:
    said = world.prove()
    (key,) = (key for key in world.bucket.objects if "/proof-" in key)
    assert read_evidence(world.bucket.objects[key], key, [signer_of(IDENTITY)]) == said
    assert world.environment.catalogue(["postgresql"]).verdict(world.manifest.id) == ""
    # nor where somebody stores it under the name of one
    name = key.replace("proof-point-", "proof-")
    world.bucket.objects[name] = world.bucket.objects[key]
    assert proof_of(name, name.rpartition("/")[2])
    catalogue = world.environment.catalogue(["postgresql"])
    assert catalogue.verdict(world.manifest.id) == ""
    assert "is about a point" in catalogue.disbelieved[name]


def test_a_recovery_that_stopped_elsewhere_fails_at_l4(world: World) -> None:
    fault = Difference(unit="recovery", item="end", what="it ended at 0/1000100, before 0/2000000")
    world.recovered = replace(REACHED, faults=(fault,), messages=("quotes a row",))
    said = world.prove()
    assert (said.verdict, said.failed_at) == ("fail", "L4")
    assert said.reason == "recovery, end: it ended at 0/1000100, before 0/2000000"
    assert said.words and "quotes a row" not in said.model_dump_json()


def test_a_server_that_ends_before_the_point_fails_and_says_so(world: World) -> None:
    world.starts = raising(Unrestorable("L3", "the engine exited with 1", f"FATAL: {ENDED_EARLY}"))
    said = world.prove()
    assert (said.verdict, said.failed_at) == ("fail", "L3")
    assert said.reason.startswith("recovery ended before 2026-11-29T12:00:30Z was reached")


def test_a_damaged_segment_is_named(world: World) -> None:
    world.starts = raising(Damaged(f"{world.wal[1]} is not what was stored"))
    said = world.prove()
    assert (said.verdict, said.failed_at) == ("fail", "L1")
    assert world.wal[1] in said.reason


def test_without_amcheck_the_verdict_is_partial(world: World) -> None:
    world.recovered = replace(REACHED, checked=0, unchecked="no amcheck")
    said = world.prove()
    assert (said.verdict, said.level, said.reason) == ("partial", "L3", "no amcheck")


def test_trouble_of_the_cluster_is_no_verdict(world: World) -> None:
    world.starts = raising(TemporaryError("the pod was evicted"))
    with pytest.raises(TemporaryError, match="evicted"):
        world.prove()


def test_a_point_that_is_not_covered_is_refused_before_anything_is_started(world: World) -> None:
    world.starts = raising(AssertionError("an engine was started"))
    with pytest.raises(NotCovered, match="Covered: 2026-11-29 12:00:00 to 2026-11-29 12:01:00 UTC"):
        world.choose("2026-11-29T12:01:00Z")
    del world.bucket.objects[world.wal[1]]
    with pytest.raises(NotCovered, match="to 2026-11-29 12:00:20 UTC"):
        world.prove()
    assert not [key for key in world.bucket.objects if "/proof-" in key]


def test_a_backup_that_a_verification_refuses_is_no_base(world: World) -> None:
    said = world.prove()
    fail = said.model_copy(update={"point": "", "verdict": "fail", "level": "", "number": 1})
    write_evidence(cast(Any, world.bucket), world.manifest.prefix, fail, IDENTITY)
    with pytest.raises(NotCovered, match="no complete base backup is older"):
        world.prove()


@pytest.mark.parametrize("components", [("redis",), ("postgresql", "redis")])
def test_only_postgresql_recovers_to_a_point(world: World, components: tuple[str, ...]) -> None:
    with pytest.raises(ArgumentError, match="only postgresql"):
        world.choose("0/1000100", *components)


# ---------------------------------------------------------------------- every night
def test_a_night_verifies_a_random_time_since_the_backup_before_and_the_newest_point(
    world: World,
) -> None:
    later = a_base(4, 2 * SEGMENT + 0x100, 40, recipients=world.manifest.recipients)
    world.bucket.objects[later.own_key] = later.signed(KEY)
    random, newest = world.nightly()
    base, _, text = random.partition("@")
    time = RecoveryTarget.parse(text).time
    assert time is not None
    assert NOON <= time < NOON + timedelta(seconds=60)
    assert base == (later.id if time >= NOON + timedelta(seconds=40) else world.manifest.id)
    assert newest == f"{later.id}@newest"


def test_the_newest_point_is_before_the_last_commit_that_is_stored(world: World) -> None:
    said = prove_point(world.environment, RunContext("test"), IDENTITY, world.nightly()[-1])
    assert (said.verdict, said.point) == ("pass", "newest")
    (point,) = world.asked
    assert point.target.time == NOON + timedelta(seconds=60, microseconds=-1)


def test_a_missing_segment_is_found_by_its_neighbours_every_night(world: World) -> None:
    segment = a_segment(4 * SEGMENT, "cc" * 32, "dd" * 32, 100)
    world.bucket.objects[segment.signed(KEY)] = b"wal"
    world.starts = raising(AssertionError("an engine was started"))
    said = prove_point(world.environment, RunContext("test"), IDENTITY, world.nightly()[-1])
    assert (said.verdict, said.failed_at) == ("fail", "L0")
    assert "0/3000000 to 0/4000000 is missing" in said.reason
    assert f"between {world.wal[1]} and {segment.signed(KEY)}" in said.reason


def test_the_first_segment_behind_a_backup_is_missed_too(world: World) -> None:
    del world.bucket.objects[world.wal[0]]
    (newest,) = world.nightly()
    said = prove_point(world.environment, RunContext("test"), IDENTITY, newest)
    assert (said.verdict, said.reason) == ("fail", f"the WAL before {world.wal[1]} is missing")


def test_where_no_wal_is_stored_or_only_since_the_backup_a_night_verifies_no_point(
    world: World,
) -> None:
    world.enabled = False
    assert world.nightly() == ()
    world.enabled = True
    for key in world.wal:
        del world.bucket.objects[key]
    assert world.nightly() == ()
    segment = a_segment(4 * SEGMENT, "", "dd" * 32, 100)
    world.bucket.objects[segment.signed(KEY)] = b"wal"
    assert world.nightly() == ()
