"""What a run of retention says of itself."""

from __future__ import annotations

from datetime import UTC, datetime

from archive.retention.garbage import Garbage
from archive.retention.locks import Extension
from archive.retention.policy import Verdict
from operations.backup.retention import RetentionPlan
from operations.backup.retention_report import RetentionReport

from ..archive.test_retention import a_set

UNTIL = datetime(2026, 12, 7, tzinfo=UTC)
NEW, OLD, OLDER = a_set(9), a_set(1), a_set(0)
VERDICTS = (Verdict(OLDER, ()), Verdict(OLD, ()), Verdict(NEW, ("the newest",)))
PLAN = RetentionPlan(VERDICTS, Garbage((), ("a", "b"), 7))


def test_a_list_says_how_many_backups_may_be_removed() -> None:
    report = RetentionReport(PLAN, applied=False, extension=Extension())
    assert report.summary == "2 of 3 backups may be removed"
    assert report.problems == []
    assert not report.document().applied


def test_a_removal_counts_what_could_not_be_removed_and_what_was_locked() -> None:
    locks = Extension(UNTIL, extended=4)
    report = RetentionReport(PLAN, applied=True, extension=locks, held={OLD.id: "it is locked"})
    assert report.summary == (
        "1 of 3 backups removed; 1 cannot be removed yet; 4 objects locked until 2026-12-07 00:00 UTC"
    )
    document = report.document()
    assert [one.held for one in document.backups] == ["", "it is locked", ""]
    assert (document.orphans.objects, document.locks.extended) == (2, 4)


def test_a_lock_that_was_refused_and_a_damaged_manifest_are_problems() -> None:
    plan = RetentionPlan(VERDICTS, PLAN.waste, unread={"test/redis/x/manifest.json": "no JSON"})
    report = RetentionReport(plan, applied=True, extension=Extension(refused={NEW.id: "forbidden"}))
    assert len(report.problems) == 2
    assert "no backup of redis is removed" in report.summary
    assert f"object locks that could not be extended: {NEW.id}: forbidden" in report.summary
