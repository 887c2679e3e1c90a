"""What retention keeps stays locked: longer every day, never shorter, sets that others need among them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from archive.backup.manifest import Manifest
from archive.object_store.entries import Version
from archive.object_store.store import Missing, Refused, Store
from archive.retention.garbage import Garbage
from archive.retention.locks import extend
from archive.retention.policy import decide
from config.sections.backups import RetentionSettings
from errors import TemporaryError
from operations.backup.retention import RetentionPlan, extend_locks, short_locks
from operations.health.store_checks import lock_finding

from .test_retention import a_set
from .versioned import VersionedClient

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
DAYS = 14
UNTIL = NOW + timedelta(days=DAYS)


class Bucket(Store):
    """Objects and their locks. As S3 does (object lock, mode compliance), it refuses a date before the present one."""

    def __init__(self, *sets: Manifest, lock: datetime | None = None) -> None:
        self.locks: dict[str, datetime | None] = {}
        self.calls: list[str] = []
        self.troubles: dict[str, Exception] = {}
        for one in sets:
            for name in ("shard-0.rdb", "shard-1.rdb", "manifest.json"):
                self.locks[one.prefix + name] = lock

    def versions(self, prefix: str) -> Iterator[Version]:
        return iter(
            Version(key, "", 1, NOW) for key in sorted(self.locks) if key.startswith(prefix)
        )

    def locked_until(self, key: str, version: str = "") -> datetime | None:
        if key not in self.locks:
            raise Missing(key)
        return self.locks[key]

    def lock(self, key: str, until: datetime, version: str = "") -> None:
        if key in self.troubles:
            raise self.troubles[key]
        now = self.locks[key]
        if now is not None and until < now:
            raise Refused("AccessDenied: the object is locked for longer")
        self.locks[key] = until
        self.calls.append(key)


def places(*sets: Manifest) -> dict[str, str]:
    return {one.id: one.prefix for one in sets}


def test_every_object_of_a_set_is_locked_for_longer_and_its_manifest_first() -> None:
    one = a_set(0)
    bucket = Bucket(one, lock=NOW + timedelta(days=1))

    done = extend(bucket, places(one), UNTIL)

    assert (done.extended, done.refused) == (3, {})
    assert set(bucket.locks.values()) == {UNTIL}
    assert bucket.calls[0] == one.own_key


def test_a_set_that_was_written_without_a_lock_gets_one() -> None:
    one = a_set(0)
    bucket = Bucket(one)
    assert extend(bucket, places(one), UNTIL).extended == 3
    assert set(bucket.locks.values()) == {UNTIL}


@pytest.mark.parametrize("longer", [timedelta(0), timedelta(days=300)])
def test_a_lock_that_is_long_enough_is_left_alone(longer: timedelta) -> None:
    one = a_set(0)
    bucket = Bucket(one, lock=UNTIL + longer)
    assert extend(bucket, places(one), UNTIL).extended == 0
    assert bucket.calls == []


def test_a_set_whose_lock_is_refused_is_named_and_the_others_are_locked() -> None:
    first, second = a_set(0), a_set(1)
    bucket = Bucket(first, second)
    bucket.troubles[f"{first.prefix}shard-1.rdb"] = Refused("AccessDenied: PutObjectRetention")

    done = extend(bucket, places(first, second), UNTIL)

    assert list(done.refused) == [first.id]
    assert "PutObjectRetention" in done.refused[first.id]
    assert {bucket.locks[key] for key in bucket.locks if key.startswith(second.prefix)} == {UNTIL}


def test_a_store_that_is_away_ends_it() -> None:
    one = a_set(0)
    bucket = Bucket(one)
    bucket.troubles[one.own_key] = TemporaryError("the store is away")
    with pytest.raises(TemporaryError):
        extend(bucket, places(one), UNTIL)


def test_the_version_below_one_that_was_put_over_it_is_locked_too() -> None:
    one = a_set(0)
    client = VersionedClient(NOW)
    for body in (b"ours", b"theirs"):
        client.put_object(Key=one.own_key, Body=body)
    extend(Store(client, "backups"), places(one), UNTIL)
    assert client.locks == {"v1": UNTIL, "v2": UNTIL}


def environment(bucket: Store, days: int = DAYS) -> Any:
    backup = SimpleNamespace(object_lock_days=days)
    return SimpleNamespace(store=bucket, settings=SimpleNamespace(backup=backup))


def plan_of(*sets: Manifest, **rules: int) -> RetentionPlan:
    return RetentionPlan(tuple(decide(sets, RetentionSettings(**rules))), cast(Garbage, None))


def test_what_stays_is_locked_with_all_that_it_needs_and_what_may_go_is_not() -> None:
    base = a_set(0)
    between = a_set(1, kind="incremental", needs=(base.id,))
    unneeded = a_set(2)
    newest = a_set(3, kind="incremental", needs=(base.id, between.id))
    sets = (base, between, unneeded, newest)
    bucket = Bucket(*sets)
    plan = plan_of(*sets, daily=1, weekly=0, monthly=0, yearly=0)

    extend_locks(environment(bucket), plan, NOW)

    locked = {one.id for one in sets if bucket.locks[one.own_key] == UNTIL}
    assert locked == {base.id, between.id, newest.id}


def test_an_earlier_set_whose_manifest_cannot_be_read_stays_locked_while_another_needs_it() -> None:
    base = a_set(0)
    newest = a_set(3, kind="incremental", needs=(base.id,))
    bucket = Bucket(base, newest)
    plan = plan_of(newest, daily=1, weekly=0, monthly=0, yearly=0)  # that base is damaged
    extend_locks(environment(bucket), plan, NOW)
    assert set(bucket.locks.values()) == {UNTIL}


def test_without_object_lock_days_nothing_is_locked() -> None:
    one = a_set(0)
    bucket = Bucket(one)
    done = extend_locks(environment(bucket, days=0), plan_of(one), NOW)
    assert (done.until, bucket.calls) == (None, [])


def test_a_lock_that_was_not_extended_for_days_is_found() -> None:
    old, new = a_set(0), a_set(1)
    bucket = Bucket(old, new, lock=UNTIL)
    plan = plan_of(old, new)
    assert short_locks(environment(bucket), plan, NOW + timedelta(hours=24)) == {}

    bucket.locks[old.own_key] = None
    found = short_locks(environment(bucket), plan, NOW + timedelta(days=2))

    assert found == {old.id: None, new.id: UNTIL}
    finding = lock_finding(found, DAYS)
    assert not finding.check.ok
    assert f"{old.id} not at all" in finding.check.hint
    assert f"{new.id} until 2026-12-07" in finding.check.hint
