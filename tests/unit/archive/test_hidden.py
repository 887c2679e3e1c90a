"""A backup whose manifest somebody deleted is named and kept, in a bucket that has its bytes as earlier versions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from archive.object_store.store import Store
from archive.retention.garbage import collect_garbage, find_garbage
from archive.retention.locks import Extension
from operations.backup.retention import RetentionPlan, apply_retention, plan_retention
from operations.backup.retention_report import RetentionReport
from operations.health.store_checks import check_garbage
from tests.environments import environment_with

from ..stored import Stored, settings_of
from .test_retention import KEY, RULES, SIGNERS, a_set
from .versioned import PAGE, VersionedClient

NOW = datetime(2026, 11, 30, 9, tzinfo=UTC)
MADE = a_set(3)
DATA = f"{MADE.prefix}shard-0.rdb.zst.age"


class Place:
    """An environment with one old backup in a bucket with versions."""

    def __init__(self) -> None:
        self.client = VersionedClient(MADE.ended)
        self.store = Store(self.client, "backups")
        self.store.put(DATA, b"data")
        self.store.put(MADE.own_key, MADE.signed(KEY))
        self.client.now = NOW
        settings = settings_of(
            environment="test",
            backup=SimpleNamespace(signers=SIGNERS, retention=RULES, object_lock_days=0),
            verify=SimpleNamespace(signers=()),
        )
        self.environment = environment_with(
            settings, kube=Stored(), store=self.store, cluster_uid="uid"
        )

    def plan(self) -> RetentionPlan:
        return plan_retention(self.environment, ["redis"], NOW + timedelta(days=9))

    def versions(self, key: str) -> list[bytes | None]:
        return [body for _, body, _ in self.client.objects[key]]


@pytest.mark.parametrize("everything", [False, True])
def test_a_backup_whose_manifest_was_deleted_is_named_and_not_removed(everything: bool) -> None:
    at = Place()
    for key in (MADE.own_key, *([DATA] if everything else [])):
        at.store.delete(key)
    plan = at.plan()

    assert apply_retention(at.environment, plan) == {}

    assert b"data" in at.versions(DATA)
    assert at.versions(MADE.own_key)[0] == MADE.signed(KEY)
    (words,) = plan.hidden.values()
    assert f"backup {MADE.id}: its manifest was deleted on 2026-11-30 09:00 UTC" in words
    assert "version v2 of it is there and signed by a backup worker" in words
    report = RetentionReport(plan, applied=True, extension=Extension())
    assert report.document().hidden == plan.hidden


def test_the_doctor_names_it_too_and_fixes_nothing_of_it() -> None:
    at = Place()
    at.store.delete(MADE.own_key)
    leftovers, deleted = check_garbage(at.environment)
    assert leftovers.check.ok
    assert not deleted.check.ok
    assert MADE.id in deleted.check.hint
    assert deleted.fix is None


def test_a_deleted_manifest_that_nobody_signed_is_told_apart() -> None:
    at = Place()
    at.client.objects[MADE.own_key] = [("v9", b"{}", MADE.ended)]
    at.store.delete(MADE.own_key)
    (words,) = at.plan().hidden.values()
    assert "not valid" in words


def test_it_is_a_backup_again_when_the_marker_is_gone() -> None:
    at = Place()
    at.store.delete(MADE.own_key)
    marker = at.client.objects[MADE.own_key][-1][0]
    at.client.delete_object(Key=MADE.own_key, VersionId=marker)
    assert at.plan().hidden == {}
    assert [v.manifest.id for v in at.plan().verdicts] == [MADE.id]


def test_what_retention_removes_leaves_no_version_behind() -> None:
    at = Place()
    newer = [a_set(day) for day in range(30, 90)]
    for one in newer:
        at.store.put(one.own_key, one.signed(KEY))
    at.store.delete(DATA)
    assert [one.id for one in at.plan().going if one.id == MADE.id] == [MADE.id]
    apply_retention(at.environment, at.plan())
    assert not [key for key, left in at.client.objects.items() if left and MADE.id in key]
    assert at.plan().hidden == {}


def test_bytes_of_a_backup_that_never_was_are_removed_though_they_were_deleted() -> None:
    at = Place()
    at.client.objects.pop(MADE.own_key)
    at.store.delete(DATA)
    waste = find_garbage(at.store, "test", NOW + timedelta(days=1))
    assert waste.objects == (DATA,)
    collect_garbage(at.store, waste)
    assert at.client.objects[DATA] == []


def test_all_versions_of_an_object_are_removed_however_many_there_are() -> None:
    at = Place()
    for _ in range(PAGE + 500):
        at.store.put(f"{MADE.prefix}many", b"x")
    at.store.purge(f"{MADE.prefix}many")
    assert at.client.objects[f"{MADE.prefix}many"] == []
    assert at.versions(DATA) == [b"data"]
