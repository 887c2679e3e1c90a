"""The store's dates tell a backup that was put back from a bucket that was copied."""

from __future__ import annotations

from datetime import datetime, timedelta

from archive.manifest import Manifest
from archive.stored_dates import StoredDates, judge_dates

from .test_retention import a_set

NIGHTS = [a_set(day) for day in range(10)]


def judged(moved: dict[int, datetime]) -> StoredDates:
    sets: dict[str, Manifest] = {one.id: one for one in NIGHTS}
    written = {
        one.id: moved.get(day, one.ended + timedelta(minutes=20)) for day, one in enumerate(NIGHTS)
    }
    return judge_dates(sets, written)


def test_backups_with_the_dates_of_their_own_nights_are_as_they_should_be() -> None:
    assert judged({}) == StoredDates(None, {})


def test_a_backup_that_was_put_back_is_named_with_the_day() -> None:
    later = NIGHTS[9].ended
    assert judged({3: later}) == StoredDates(None, {NIGHTS[3].id: later})


def test_a_copied_bucket_is_no_replay_and_newer_nights_keep_their_dates() -> None:
    moved = NIGHTS[6].ended + timedelta(hours=5)
    hours = {day: moved + timedelta(minutes=day) for day in range(7)}
    assert judged(hours) == StoredDates(moved, {})


def test_a_backup_put_back_after_the_bucket_was_copied_is_seen_among_newer_nights() -> None:
    moved, later = NIGHTS[4].ended + timedelta(hours=5), NIGHTS[9].ended
    hours = dict.fromkeys(range(5), moved)
    assert judged({**hours, 6: later}) == StoredDates(moved, {NIGHTS[6].id: later})
