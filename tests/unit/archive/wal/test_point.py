"""Which base backup leads to a point, and what is said of a point that none leads to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archive.backup.manifest import Artefact, Consistency, Engine, Manifest
from archive.wal.coverage import NotCovered, Wal
from archive.wal.point import (
    Base,
    Point,
    base_of,
    bases_of,
    choose_point,
    covered_ranges,
)
from archive.wal.target import RecoveryTarget
from errors import ArgumentError, PermanentError

from ..test_retention import a_set
from .history import NOON, SEGMENT, SYSTEM, Cluster

LATER = NOON + timedelta(hours=1)
BASE = Artefact(
    name="base.tar.zst.age", unit="all databases", format="tar", plain_size=1, plain_sha256="0" * 64,
    stored_size=1, stored_sha256="0" * 64, part_size=8,
)  # fmt: skip


def a_base(day: int, end: int, second: int, **more: Any) -> Manifest:
    """A set with a base backup that ends at an LSN, so many seconds after noon."""
    point = Consistency(unit="all databases", point=f"LSN 0/{end:X}", begun=NOON, ended=NOON)
    fields = {
        "id": a_set(day).id.replace("redis", "postgresql"), "component": "postgresql",
        "artefacts": (BASE,), "consistency": (point,),
        "engine": Engine(name="PostgreSQL", version="18.1", identity=SYSTEM),
        "topology": {"timeline": 1, "settled": (NOON + timedelta(seconds=second)).isoformat()},
    }  # fmt: skip
    return a_set(day, **{**fields, **more})


@pytest.fixture
def wal(monkeypatch: pytest.MonkeyPatch) -> Wal:
    """Five segments and a half on timeline 1; LSN and seconds after noon are the same number."""
    monkeypatch.setattr("archive.wal.point.SMALLEST_SEGMENT", 1)
    monkeypatch.setattr("archive.wal.point.DEFAULT_SEGMENT", SEGMENT)
    cluster = Cluster()
    cluster.write(5 * SEGMENT + SEGMENT // 2)
    objects = cluster.stored(1, *(n * SEGMENT for n in range(6)), 330, 340, 352, begins=True)
    return Wal(objects, ())


def at(second: float) -> RecoveryTarget:
    return RecoveryTarget(time=NOON + timedelta(seconds=second))


def chosen(wal: Wal, target: RecoveryTarget, *sets: Manifest) -> Point:
    return choose_point(bases_of(sets), lambda system: wal, target, LATER)


OLD, NEW = (70, 75), (200, 210)  # LSN and second of two base backups


@pytest.mark.parametrize(
    ("target", "end", "reaches"),
    [
        (at(100), 70, 128),
        (at(209.9), 70, 256),
        (at(210), 200, 256),
        (at(351.9), 200, 352),
        (RecoveryTarget(lsn=199), 70, 320),
        (RecoveryTarget(lsn=200), 200, 320),
        (RecoveryTarget(lsn=339), 200, 352),
    ],
)
def test_the_newest_base_backup_before_a_point_is_chosen(
    wal: Wal, target: RecoveryTarget, end: int, reaches: int
) -> None:
    point = chosen(wal, target, a_base(1, *OLD), a_base(2, *NEW))
    assert (point.base.end, point.line.end) == (end, reaches)
    assert point.line.start == end - end % SEGMENT
    assert point.wal_bytes % SEGMENT == 0


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (at(74), "no complete base backup is older"),
        (RecoveryTarget(lsn=69), "no complete base backup is older"),
        (at(352), "not followed by a stored commit"),
        (RecoveryTarget(lsn=352), "not followed by a stored commit"),
        (RecoveryTarget(lsn=353), "is not stored"),
        (at(7200), "it is in the future"),
    ],
)
def test_a_point_that_is_not_covered_is_refused_with_what_is(
    wal: Wal, target: RecoveryTarget, words: str
) -> None:
    sets = (a_base(1, *OLD), a_base(2, *NEW))
    with pytest.raises(NotCovered, match=words) as refused:
        chosen(wal, target, *sets)
    assert str(refused.value).endswith(
        "Covered: 2026-11-29 12:01:15 to 2026-11-29 12:05:52 UTC, LSN 0/46 to 0/160 "
        f"(from {sets[0].id})"
    )


def test_an_older_base_backup_is_used_where_the_wal_behind_a_newer_one_is_missing(wal: Wal) -> None:
    another = a_base(2, *NEW, engine=Engine(name="PostgreSQL", version="18.1", identity="8"))
    by_system = {SYSTEM: wal, "8": Wal((), ())}
    bases = bases_of([a_base(1, *OLD), another])
    assert choose_point(bases, by_system.__getitem__, at(300), LATER).base.end == 70
    assert len(covered_ranges(bases, by_system.__getitem__)) == 1


def test_without_wal_nothing_is_covered() -> None:
    with pytest.raises(NotCovered, match="Covered: nothing"):
        choose_point(bases_of([a_base(1, *OLD)]), lambda system: Wal((), ()), at(100), LATER)


def test_sets_that_are_partial_or_lack_what_they_need_are_no_base() -> None:
    full = a_base(1, *OLD)
    part = a_base(2, *NEW, kind="incremental", needs=(full.id,))
    assert [base.end for base in bases_of([full, part])] == [70, 200]
    assert bases_of([part, a_base(3, *NEW, outcome="partial"), a_set(4)]) == ()


def test_an_earlier_manifest_says_when_it_ended_by_the_clock_of_its_worker() -> None:
    base = base_of(a_base(1, *OLD, topology={"timeline": 1}))
    assert isinstance(base, Base)
    assert (base.settled, base.segment) == (base.manifest.ended, 16 << 20)


@pytest.mark.parametrize(
    "topology",
    [
        {}, {"timeline": "x"}, {"timeline": 0}, {"timeline": 1, "wal_segment_bytes": 3 << 20},
        {"timeline": 1, "settled": "yesterday"}, {"timeline": 1, "settled": 5},
    ],
)  # fmt: skip
def test_a_manifest_that_does_not_say_where_recovery_begins_is_refused(
    topology: dict[str, Any],
) -> None:
    with pytest.raises(PermanentError):
        base_of(a_base(1, *OLD, topology=topology))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-11-29T17:59:30Z", "2026-11-29T17:59:30Z"),
        ("2026-11-29T18:59:30.25+01:00", "2026-11-29T17:59:30.250000Z"),
        ("0/3000028", "0/3000028"),
        ("0/300002a", "0/300002A"),
    ],
)
def test_a_point_is_a_time_with_its_offset_or_an_lsn(text: str, same: str) -> None:
    target = RecoveryTarget.parse(text)
    assert target.text == same
    assert RecoveryTarget.parse(same) == target


@pytest.mark.parametrize(
    "text",
    [
        "", "yesterday", "2026-11-29", "2026-11-29T17:59:30", "2026-11-29T17:59Z", "2026-02-30T00:00:00Z",
        "0001-01-01T00:00:00+14:00", "2026-11-29 17:59:30Z", "0/0", "3000028", "0/100000000",
    ],
)  # fmt: skip
def test_anything_else_is_a_wrong_input(text: str) -> None:
    with pytest.raises(ArgumentError, match="--at"):
        RecoveryTarget.parse(text)


def test_the_time_of_a_target_is_utc() -> None:
    assert RecoveryTarget.parse("2026-11-29T18:00:00+01:00").time == datetime(
        2026, 11, 29, 17, tzinfo=UTC
    )
