"""What retention removes of the stored WAL: what no kept base backup needs, and pieces that larger objects replace."""

from __future__ import annotations

from datetime import timedelta

import pytest

from archive.wal.bucket import WalListing
from archive.wal.coverage import Wal
from archive.wal.names import WalObject
from archive.wal.retention import expired_wal

from .history import NOON, SEGMENT, SYSTEM, Cluster
from .test_point import a_base

LATER = NOON + timedelta(days=1)
BOUNDARIES = tuple(number * SEGMENT for number in range(6))


@pytest.fixture(autouse=True)
def segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.wal.point.SMALLEST_SEGMENT", 1)
    monkeypatch.setattr("archive.wal.point.DEFAULT_SEGMENT", SEGMENT)


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster()
    made.write(5 * SEGMENT)
    return made


def expired(objects: list[WalObject], *ends: int, before: object = LATER) -> list[WalObject]:
    bases = [a_base(day, end, end) for day, end in enumerate(ends)]
    listing = WalListing({SYSTEM: objects})
    return sorted(expired_wal(listing, bases, before), key=lambda one: one.start)  # type: ignore[arg-type]


def test_wal_before_the_segment_in_which_the_oldest_kept_backup_ended_goes(
    cluster: Cluster,
) -> None:
    objects = cluster.stored(1, *BOUNDARIES, begins=True)
    assert expired(objects, 3 * SEGMENT + 1, 2 * SEGMENT + 5) == objects[:2]
    assert expired(objects, 5) == []
    left = [one for one in objects if one not in expired(objects, 2 * SEGMENT + 5)]
    assert Wal(left, ()).from_base(1, 2 * SEGMENT + 5, SEGMENT).end == 5 * SEGMENT


def test_young_wal_and_wal_without_a_known_backup_stays(cluster: Cluster) -> None:
    objects = cluster.stored(1, *BOUNDARIES, begins=True)
    assert expired(objects, 3 * SEGMENT, before=NOON) == []
    assert expired(objects) == []
    unreadable = a_base(1, 5, 5, topology={})
    fine = a_base(2, 3 * SEGMENT, 5)
    assert expired_wal(WalListing({SYSTEM: objects}), [unreadable, fine], LATER) == ()


def test_pieces_of_a_segment_go_when_larger_objects_lead_through_it(cluster: Cluster) -> None:
    pieces = cluster.stored(1, 64, 70, 90, 128)
    whole = cluster.stored(1, 64, 96, 128)
    other = cluster.stored(1, 64, 80)  # it leads nowhere
    rest = [*cluster.stored(1, 0, 64, begins=True), *cluster.stored(1, 128, 140, 150)]
    assert expired([*pieces, *whole, *other, *rest], 5) == pieces


def test_pieces_stay_while_the_segment_is_not_complete_without_them(cluster: Cluster) -> None:
    pieces = cluster.stored(1, 64, 70, 90, 128)
    half = cluster.stored(1, 64, 96)
    rest = [*cluster.stored(1, 0, 64, begins=True), *cluster.stored(1, 128, 192)]
    assert expired([*pieces, *half, *rest], 5) == []
