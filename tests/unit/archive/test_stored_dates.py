"""The store's dates tell a backup that was put back from a bucket that was copied."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from archive.backup.manifest import Manifest
from archive.catalogue.listing import Catalogue
from archive.catalogue.stored_dates import StoredDates, judge_dates, stored_again
from archive.object_store.store import Store
from operations.health.store_checks import check_dates

from .test_retention import a_set
from .versioned import VersionedClient

NIGHTS = [a_set(day) for day in range(10)]


def judged(moved: dict[int, datetime], *, artefacts_too: bool = True) -> StoredDates:
    sets: dict[str, Manifest] = {one.id: one for one in NIGHTS}
    written = {
        one.id: moved.get(day, one.ended + timedelta(minutes=20)) for day, one in enumerate(NIGHTS)
    }
    oldest = written if artefacts_too else {one.id: one.ended for one in NIGHTS}
    return judge_dates(sets, written, oldest)


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


def test_a_replay_is_seen_although_every_manifest_was_stored_again() -> None:
    later = NIGHTS[9].ended + timedelta(days=3)
    every = {day: later + timedelta(minutes=day) for day in range(10)}
    found = judged(every, artefacts_too=False)
    assert found.copied is None
    assert len(found.replayed) == 10


def test_a_replay_is_seen_by_the_earlier_versions_although_every_object_was_stored_again() -> None:
    client = VersionedClient(NIGHTS[0].ended)
    for days in (0, 300):
        client.now = NIGHTS[0].ended + timedelta(days=days)
        client.put_object(Key=NIGHTS[0].own_key, Body=b"the same")
    client.put_object(Key=NIGHTS[1].own_key, Body=b"once")
    found = stored_again(Store(client, "backups").versions("test/"))
    assert found == {NIGHTS[0].id: client.now}
    finding = check_dates(Catalogue(tuple(NIGHTS), {}, ()), found, client.now)
    assert not finding.check.ok
    assert f"{NIGHTS[0].id} of 2025-01-01 on 2025-10-28" in finding.check.hint


@pytest.mark.parametrize(("days", "ok"), [(1, False), (15, True)])
def test_a_copied_bucket_is_a_finding_for_two_weeks(days: int, ok: bool) -> None:
    moved = NIGHTS[9].ended + timedelta(days=9)
    dates = {one.id: moved for one in NIGHTS}
    catalogue = Catalogue(tuple(NIGHTS), {}, (), written=dates, oldest=dates)
    finding = check_dates(catalogue, {}, moved + timedelta(days=days))
    assert finding.check.ok == ok
    assert "the bucket was copied on 2025-01-19" in finding.check.hint
