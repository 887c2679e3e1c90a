"""`isa wal status`, `isa status` and the doctor read the stream from its Lease and the WAL from the listing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from archive.signing import public_half
from cluster.lease import OPERATION
from config.sections.backups import BackupSigner
from config.sections.wal import PostgresqlWal
from errors import TemporaryError
from operations.environment.environment import Environment
from operations.health.cluster_checks import check_wal_stream
from operations.health.status import read_recovery_points
from operations.health.store_checks import check_wal
from operations.wal.note import note_text
from operations.wal.status import read_wal
from tests.environments import environment_with
from tests.unit.archive.wal.history import SEGMENT, SYSTEM, Cluster
from tests.unit.buckets import Bucket

from ..stored import CONTROL, Stored, settings_of
from .test_wal_checks import NOTE

KEY = Ed25519PrivateKey.generate()
NOW = datetime.now(UTC)


class Standing(Stored):
    """An API server whose clock stands still."""

    def now(self) -> datetime:
        return NOW


class World:
    """A cluster with a stream's Lease, and a bucket with WAL."""

    def __init__(self) -> None:
        self.kube, self.bucket = Standing(), Bucket()
        self.enabled = True
        self.backups: list[Any] = []
        self.holds(NOW - timedelta(seconds=2))

    def holds(self, covers: datetime, note: str = "", age: float = 1.0) -> None:
        at = (NOW - timedelta(seconds=age)).isoformat()
        self.kube.objects["Lease", "isa-wal-postgresql"] = {
            "metadata": {
                "name": "isa-wal-postgresql", "namespace": CONTROL, "managedFields": [{"time": at}],
                "annotations": {OPERATION: note or note_text(replace(NOTE, covers=covers))},
            },
            "spec": {"holderIdentity": "isa-wal-0/7", "leaseDurationSeconds": 10, "renewTime": at},
        }  # fmt: skip

    def store(self, *cuts: int, lost: int | None = None) -> None:
        """Have WAL between LSNs in the bucket."""
        cluster = Cluster()
        cluster.write(8 * SEGMENT)
        for number, one in enumerate(cluster.stored(1, *cuts, begins=True)):
            if number != lost:
                self.bucket.put(one.signed(KEY), b"")

    @property
    def environment(self) -> Environment:
        settings = settings_of(
            environment="test", wal=SimpleNamespace(postgresql=PostgresqlWal(enabled=self.enabled)),
            backup=SimpleNamespace(signers=(BackupSigner(key=public_half(KEY)),)),
        )  # fmt: skip
        catalogue = SimpleNamespace(of=lambda component: self.backups)
        return environment_with(
            settings, kube=self.kube, store=self.bucket, catalogue=lambda names: catalogue
        )


@pytest.fixture
def world() -> World:
    return World()


def test_what_is_stored_and_how_the_stream_stands_are_one_document(world: World) -> None:
    world.store(0, 64, 128, 150)
    found = read_wal(world.environment)
    assert [check.name for check in found.checks if not check.ok] == []
    (system,) = found.systems
    assert (system.system, system.gaps) == (SYSTEM, ())
    (stored,) = system.ranges
    assert (stored.start, stored.end, stored.timelines, stored.objects) == ("0/0", "0/96", (1,), 3)
    assert found.stream.holder == "isa-wal-0/7"
    assert found.stream.recovery_point_seconds == 2.0


def test_a_gap_is_named_until_a_complete_backup_began_behind_it(world: World) -> None:
    world.store(0, 64, 128, 192, lost=1)

    def critical() -> list[str]:
        return [check.name for check in read_wal(world.environment).checks if not check.ok]

    assert critical() == ["WAL coverage"]
    world.backups = [SimpleNamespace(begun=NOW, outcome="partial")]
    assert critical() == ["WAL coverage"]
    world.backups.append(SimpleNamespace(begun=NOW, outcome="complete"))
    assert critical() == []
    (system,) = read_wal(world.environment).systems
    assert len(system.gaps) == 1


def test_a_stream_that_died_leaves_its_recovery_point_which_grows(world: World) -> None:
    world.holds(NOW - timedelta(hours=2), age=7200)
    (point,) = read_recovery_points(world.environment)
    assert point.holder == ""
    assert point.seconds == 7200.0
    assert {check.name for check in point.checks if not check.ok} == {
        "WAL stream",
        "WAL recovery point",
    }
    assert [one.check.name for one in check_wal_stream(world.environment) if not one.check.ok] == [
        "WAL stream",
        "WAL recovery point",
    ]


def test_a_note_that_cannot_be_read_is_no_recovery_point(world: World) -> None:
    world.holds(NOW, note='{"state": "streaming"}')
    (point,) = read_recovery_points(world.environment)
    assert (point.time, point.holder) == (None, "isa-wal-0/7")


def test_an_api_server_that_is_away_is_a_finding_of_status(world: World) -> None:
    environment = world.environment

    def away(*_: object) -> None:
        raise TemporaryError("the API server does not answer")

    vars(environment)["kube"] = SimpleNamespace(get=away)
    (point,) = read_recovery_points(environment)
    assert [(check.ok, check.hint) for check in point.checks] == [
        (False, "the API server does not answer")
    ]


def test_nothing_is_said_of_a_stream_that_is_not_wanted(world: World) -> None:
    world.enabled = False
    assert read_recovery_points(world.environment) == ()
    assert read_wal(world.environment).checks == ()
    assert [one.check.hint for one in check_wal_stream(world.environment)] == [
        "not used (wal.postgresql.enabled is false)"
    ]
    assert list(check_wal(world.environment)) == []
    world.enabled = True
    assert read_recovery_points(world.environment, ["redis"]) == ()
