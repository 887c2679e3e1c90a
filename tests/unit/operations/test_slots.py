"""A night's backup is taken once, and only a complete one counts as taken."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from archive.backup.manifest import Capabilities, Consistency, Engine, Manifest, new_identity
from archive.catalogue.listing import Catalogue
from errors import ArgumentError
from operations.backup.component import EXISTS, PARTIAL, BackupResult, slot_taken
from operations.backup.nightly import BackupReport
from operations.backup.slot import check_slot, fills

START = datetime(2026, 11, 23, 1, tzinfo=UTC)


def a_set(hour: int, outcome: str, slot: str = "2026-11-23") -> Manifest:
    begun = START + timedelta(hours=hour)
    return Manifest(
        id=new_identity("redis", begun, f"{hour:06x}"),
        component="redis",
        environment="test",
        cluster="uid",
        slot=slot,
        begun=begun,
        ended=begun,
        outcome=outcome,  # type: ignore[arg-type]
        missing=("shard 2",) if outcome == "partial" else (),
        not_covered=(),
        engine=Engine(name="redis", version="8"),
        consistency=(Consistency(unit="u", point="p", begun=begun, ended=begun),),
        artefacts=(),
        fingerprint=(),
        store=Capabilities(conditional_put=True, checksums=True, versioning=True, object_lock=True),
        recipients=(),
    )


def taken(*sets: Manifest, slot: str = "2026-11-23") -> Manifest | None:
    return slot_taken(Catalogue(sets, {}, ()), "redis", slot, "UTC")


def test_a_partial_set_is_not_the_nights_set() -> None:
    assert taken(a_set(0, "partial")) is None


def test_a_complete_set_is_the_nights_set_whatever_partial_ones_stand_around_it() -> None:
    whole = a_set(1, "complete")
    assert taken(a_set(0, "partial"), whole, a_set(2, "partial")) == whole


def test_another_nights_set_and_a_set_without_a_night_do_not_count() -> None:
    assert taken(a_set(0, "complete", "2026-11-22")) is None
    assert taken(a_set(0, "complete", ""), slot="") is None


@pytest.mark.parametrize(("outcome", "state"), [(PARTIAL, "failed"), (EXISTS, "completed")])
def test_a_night_with_a_partial_set_has_failed(outcome: str, state: str) -> None:
    assert BackupReport(1.0, (BackupResult("redis", outcome, reason="shard 2"),)).state == state


def test_a_set_made_today_does_not_leave_a_night_to_come_empty() -> None:
    assert taken(a_set(0, "complete", "2026-12-24"), slot="2026-12-24") is None


def test_a_name_that_is_no_date_is_filled_at_any_time() -> None:
    early = a_set(0, "complete", "before-upgrade")
    assert taken(early, slot="before-upgrade") == early


@pytest.mark.parametrize(
    ("begun", "timezone", "filled"),
    [
        ("2026-11-23T00:30:00+00:00", "UTC", True),
        ("2026-11-22T23:10:00+00:00", "UTC", True),  # a clock that is behind
        ("2026-11-22T20:00:00+00:00", "UTC", False),
        ("2026-11-22T23:30:00+00:00", "Europe/Berlin", True),  # 00:30 there
        ("2026-11-22T11:30:00+00:00", "Pacific/Auckland", True),
        ("2026-11-23T01:00:00+00:00", "America/Los_Angeles", False),  # still the day before
        ("2026-11-26T03:00:00+00:00", "UTC", True),  # a run that started late
    ],
)
def test_a_night_begins_at_midnight_of_the_site(begun: str, timezone: str, filled: bool) -> None:
    assert fills("2026-11-23", datetime.fromisoformat(begun), timezone) == filled


@pytest.mark.parametrize(
    ("slot", "words"),
    [
        ("2026-11-24", "is in the future or not a date"),
        ("9999-12-31", "is in the future or not a date"),
        ("2026-02-31", "is in the future or not a date"),
        ("../other", "is not a valid key"),
        ("a\nb", "is not a valid key"),
        ("x" * 101, "is not a valid key"),
    ],
)
def test_a_slot_that_a_backup_made_now_cannot_be_for_is_refused(slot: str, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        check_slot(slot, "UTC", START)


@pytest.mark.parametrize("slot", ["", "2026-11-23", "2026-11-20", "before-upgrade"])
def test_the_present_night_an_earlier_one_and_a_name_are_taken(slot: str) -> None:
    check_slot(slot, "UTC", START)
