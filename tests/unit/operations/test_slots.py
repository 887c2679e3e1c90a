"""A night's backup is taken once, and only a complete one counts as taken."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from archive.catalogue import Catalogue
from archive.manifest import Capabilities, Consistency, Engine, Manifest, new_identity
from operations.backup import EXISTS, PARTIAL, BackupResult, slot_taken
from operations.backups import BackupReport

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
    return slot_taken(Catalogue(sets, {}, ()), "redis", slot)


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
