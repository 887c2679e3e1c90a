"""Where a recovery stopped, compared with where it was to stop; and the settings that it is given."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from archive.wal.bucket import WalReader
from archive.wal.coverage import Line
from archive.wal.names import WalObject
from archive.wal.point import Base, Point
from archive.wal.target import RecoveryTarget
from components.postgresql.point import CONFIGURATION, WAL, end_faults, place_wal

SEGMENT = 16 << 20
NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
END = SEGMENT + 0x2000


def point(target: RecoveryTarget, timeline: int = 1) -> Point:
    one = WalObject("test", "7", timeline, SEGMENT, 2 * SEGMENT, "", "aa" * 32, NOON, NOON)
    base = Base(cast(Any, None), 1, SEGMENT + 0x100, SEGMENT, NOON)
    return Point(target, base, Line((one,)), ())


def faults(target: RecoveryTarget, lsn: int, last: Any = None, stopped: Any = None) -> list[str]:
    return [fault.what for fault in end_faults(point(target), lsn, last, stopped)]


def test_a_recovery_that_stopped_between_two_commits_is_at_its_time() -> None:
    assert faults(RecoveryTarget(time=NOON), END, NOON, NOON + SECOND) == []
    assert faults(RecoveryTarget(time=NOON), END, None, NOON + SECOND) == []


@pytest.mark.parametrize(
    ("lsn", "last", "stopped", "words"),
    [
        (END, NOON - SECOND, None, "it ended at 0/1002000 without a commit after"),
        (END, NOON - SECOND, NOON, "it stopped at the commit of .*, which is not after"),
        (END, NOON + SECOND, NOON + 2 * SECOND, "it replayed the commit of .*, which is after"),
        (SEGMENT, None, NOON + SECOND, "it ended at 0/1000000, before 0/1000100"),
    ],
)
def test_a_recovery_that_is_not_at_its_time_says_so(
    lsn: int, last: datetime | None, stopped: datetime | None, words: str
) -> None:
    (what,) = faults(RecoveryTarget(time=NOON), lsn, last, stopped)
    assert re.match(words, what)


@pytest.mark.parametrize(
    ("target", "lsn"),
    [
        (END, END),
        (END + 24, END),  # the record begins behind the header of its page
        (2 * SEGMENT + 40, 2 * SEGMENT),  # of the first page of a segment
        (END + 100, END + 108),  # the target was in the middle of a record
    ],
)
def test_a_recovery_that_replayed_all_before_an_lsn_is_at_it(target: int, lsn: int) -> None:
    assert faults(RecoveryTarget(lsn=target), lsn) == []


@pytest.mark.parametrize(("target", "lsn"), [(END + 8, END + 7), (END + 25, END)])
def test_a_recovery_that_ended_before_its_lsn_says_so(target: int, lsn: int) -> None:
    (what,) = faults(RecoveryTarget(lsn=target), lsn)
    assert "before" in what


class Reader:
    """Saves nothing."""

    def save(self, line: Line, histories: Any, size: int, directory: Path) -> None:
        assert size == SEGMENT and directory.is_dir()


@pytest.mark.parametrize(
    ("target", "lines"),
    [
        (
            RecoveryTarget(time=NOON),
            {"recovery_target_time = '2026-11-29 12:00:00.000000+00'", "recovery_target_inclusive = 'on'"},
        ),
        (
            RecoveryTarget(lsn=END),
            {"recovery_target_lsn = '0/1002000'", "recovery_target_inclusive = 'off'"},
        ),
    ],
)  # fmt: skip
def test_the_server_is_told_its_point_its_timeline_and_where_the_wal_is(
    target: RecoveryTarget, lines: set[str], tmp_path: Path
) -> None:
    volume = tmp_path / "it's 100%"
    volume.mkdir()
    place_wal(point(target, timeline=3), cast(WalReader, Reader()), volume)
    where = f"{tmp_path}/it''s 100%%/{WAL}"
    assert set((volume / CONFIGURATION).read_text().splitlines()) == lines | {
        f'restore_command = \'cp "{where}/%f" "%p" 2> /dev/null\'',
        "recovery_target_timeline = '3'",
        "recovery_target_action = 'promote'",
    }
