"""What doctor, `isa status` and `isa wal status` say of the stream of WAL and of what it stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from archive.wal.bucket import WalListing
from operations.documents.wal import INTERRUPTED, STREAMING, WalNote, WalSlot, WalStream
from operations.wal.checks import RECOVERY_POINT_SECONDS, check_coverage, check_stream
from tests.unit.archive.wal.history import NOON, SEGMENT, SYSTEM, Cluster

GIB = 1 << 30
NOTE = WalNote(
    state=STREAMING, reason="", noted=NOON, system=SYSTEM, timeline=3, stored_lsn="0/3000028", covers=NOON,
    recovery_point_seconds=0.5, spool_bytes=0, spool_limit_bytes=4 * GIB, store="", diverged="", hole="",
    gaps=0, last_gap=None,
    slots=(WalSlot(member="node-0", held_bytes=1 << 24, limit_bytes=20 * GIB),),
)  # fmt: skip
GOOD = WalStream(
    component="postgresql", holder="isa-wal-0/1", recovery_point=NOON, recovery_point_seconds=1.0, note=NOTE
)  # fmt: skip


def noted(**changes: Any) -> WalStream:
    return replace(GOOD, note=replace(NOTE, **changes))


def faults(stream: WalStream) -> dict[str, tuple[bool, str]]:
    """Name of each finding that is not good → whether it is critical, and its words."""
    return {one.name: (one.critical, one.hint) for one in check_stream(stream) if not one.ok}


def test_a_stream_that_stores_has_no_finding() -> None:
    assert faults(GOOD) == {}


def slot(held: int, limit: int | None) -> tuple[WalSlot, ...]:
    return (WalSlot(member="node-1", held_bytes=held, limit_bytes=limit),)


@pytest.mark.parametrize(
    ("stream", "finding", "critical", "words"),
    [
        (replace(GOOD, holder=""), "WAL stream", True, "nobody holds Lease isa-wal-postgresql"),
        (noted(state=INTERRUPTED, reason="no primary"), "WAL stream", False, "interrupted: no primary"),
        (
            replace(GOOD, recovery_point_seconds=RECOVERY_POINT_SECONDS + 30),
            "WAL recovery point", True, "90 s: commits until 2026-11-29 12:00:00 UTC are stored",
        ),
        (replace(GOOD, recovery_point=None), "WAL recovery point", False, "not known yet"),
        (noted(diverged="it is of another history"), "WAL history", True, "another history"),
        (noted(store="the store is away"), "WAL spool", False, "the store is away"),
        (noted(spool_bytes=3 * GIB), "WAL spool", False, "3.0 GiB of 4.0 GiB wait"),
        (noted(spool_bytes=4 * GIB), "WAL spool", True, "nothing more is received"),
        (noted(slots=slot(11 * GIB, 20 * GIB)), "WAL slots", True, "node-1 keeps 11.0 GiB of 20.0 GiB"),
        (noted(slots=slot(0, None)), "WAL slots", True, "no max_slot_wal_keep_size"),
    ],
)  # fmt: skip
def test_each_fault_of_a_stream_is_named(
    stream: WalStream, finding: str, critical: bool, words: str
) -> None:
    found = faults(stream)
    assert found.keys() == {finding}
    assert found[finding][0] is critical
    assert words in found[finding][1]


def test_a_holder_without_a_readable_note_is_no_alarm_and_a_dead_one_is() -> None:
    assert faults(replace(GOOD, note=None)) == {}
    assert faults(replace(GOOD, note=None, holder="")).keys() == {"WAL stream"}


# ---------------------------------------------------------------------- what is stored
def listing(*cuts: int, gap: int | None = None) -> WalListing:
    cluster = Cluster()
    cluster.write(8 * SEGMENT)
    objects = cluster.stored(1, *cuts, begins=True)
    if gap is not None:
        del objects[gap]
    return WalListing({SYSTEM: objects}, {})


def coverage(found: WalListing, **more: Any) -> dict[str, str]:
    return {one.name: one.hint for one in check_coverage(found, **more) if not one.ok}


def test_a_gap_is_critical_until_a_backup_was_taken_behind_it() -> None:
    found = listing(0, 64, 128, 192, gap=1)
    for backup in (None, NOON - timedelta(hours=1)):
        (hint,) = coverage(found, backup=backup).values()
        assert "0/40 to 0/80 is missing (64 bytes)" in hint
        assert "isa backup postgresql" in hint
    assert coverage(found, backup=NOON + timedelta(hours=1)) == {}
    assert coverage(listing(0, 64, 128), backup=None) == {}


def test_wal_of_a_timeline_without_its_history_and_objects_that_do_not_count_are_named() -> None:
    cluster = Cluster()
    cluster.write(3 * SEGMENT)
    cluster.promote(1, 2 * SEGMENT, 2)
    cluster.write(SEGMENT, 2)
    objects = cluster.stored(1, 0, 64, 128, begins=True) + cluster.stored(2, 128, 192)
    found = coverage(WalListing({SYSTEM: objects}, {}, {"key": "key is refused"}), backup=None)
    assert "the history file of timeline 2 is not stored" in found["WAL timelines"]
    assert found["WAL objects"] == "1 do not count: key is refused"
