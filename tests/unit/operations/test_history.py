"""What is said of backups and proofs over time: honest about few of them, about errors, and about forged documents."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from archive.catalogue.listing import Catalogue
from archive.evidence.verdicts import Evidence, Proof
from operations.health.freshness import Freshness, Limits
from operations.report.history import (
    DOCUMENTS,
    BackupPoint,
    ComponentHistory,
    ProofPoint,
    history,
    trend,
)

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SET = "redis-20261101T010000Z-0a1b2c"


def days(ago: float) -> datetime:
    return NOW - timedelta(days=ago)


def evidence(proof: Proof) -> Evidence:
    return Evidence.model_validate(
        {
            "set": SET, "component": "redis", "environment": "test", "manifest_sha256": "",
            "verdict": proof.verdict, "level": "L4" if proof.verdict == "pass" else "",
            "failed_at": "" if proof.verdict == "pass" else "L2", "reason": "redis-check-rdb: bad file",
            "begun": proof.at, "seconds": 74.2, "compared": 41, "things": 1284310,
        }
    )  # fmt: skip


def read(*proofs: tuple[float, str], believed: bool = True) -> ComponentHistory:
    """Days ago and verdict of each proof of one set."""
    found = tuple(Proof(days(ago), verdict, f"{ago}") for ago, verdict in proofs)
    catalogue = Catalogue((), {}, (), {SET: found})
    documents = evidence if believed else lambda proof: None
    return history(catalogue, "redis", Limits(8 * 86400), NOW, documents)


def backup(ago: float, stored: int, kind: str = "full", outcome: str = "complete") -> BackupPoint:
    return BackupPoint(SET, days(ago), 10.0, 2 * stored, stored, kind, outcome)


def of(*backups: BackupPoint) -> ComponentHistory:
    return ComponentHistory(Freshness("redis", "never"), backups, (), NOW)


# ---------------------------------------------------------------------- the headline
@pytest.mark.parametrize(
    ("proofs", "words"),
    [
        ([], "there is no complete backup, and no restore was ever verified"),
        (
            [(1, "pass")],
            "restore verified on 2026-11-23 (L4): 41 checks match over 1,284,310 objects, 74 s",
        ),
        (
            [(2, "pass"), (1, "fail")],
            "the last verification did not pass on 2026-11-23, fail at L2: redis-check-rdb: bad file. "
            "Before: restore verified on 2026-11-22",
        ),
        ([(9, "pass")], "74 s. That is 9 days ago"),
        ([(2, "pass"), (1, "error"), (0.5, "error")], "Since then 2 ended in an error"),
        ([(1, "error")], "no restore was ever verified. Since then 1 ended in an error"),
    ],
)
def test_the_headline_says_what_is_known(proofs: list[tuple[float, str]], words: str) -> None:
    assert words in read(*proofs).headline


def test_a_proof_whose_document_is_not_believed_is_shown_as_such() -> None:
    found = read((1, "pass"), believed=False)
    assert [one.verdict for one in found.proofs] == ["unreadable"]
    assert "no restore was ever verified" in found.headline


def test_of_old_proofs_only_the_name_is_read() -> None:
    found = read(*((DOCUMENTS + 2 - n, "pass") for n in range(DOCUMENTS + 2)))
    assert found.proofs[0] == ProofPoint(SET, days(DOCUMENTS + 2), "pass")
    assert [one.level for one in found.proofs].count("L4") == DOCUMENTS


# ---------------------------------------------------------------------- the trend
def test_a_trend_is_a_share_of_the_median_in_a_week() -> None:
    found = trend([(days(10 - n), 100.0 + 2 * n) for n in range(11)])
    assert found is not None
    assert found.weekly == pytest.approx(14 / 110)
    assert [found.first, found.last] == pytest.approx([100, 120])


def test_one_odd_night_does_not_bend_it() -> None:
    points = [(days(10 - n), 100.0) for n in range(11)]
    points[9] = (points[9][0], 5000.0)
    found = trend(points)
    assert found is not None
    assert found.weekly == 0


def test_few_points_or_few_days_have_no_trend() -> None:
    assert trend([]) is None
    assert trend([(days(n), 1.0) for n in (9, 6, 3, 0)]) is None
    assert trend([(days(n / 24), 1.0) for n in range(20, 0, -1)]) is None


def test_incremental_and_partial_sets_are_no_part_of_it() -> None:
    full = [backup(10 - n, 100) for n in range(6)]
    others = [backup(3, 1, "incremental"), backup(2, 1, outcome="partial")]
    assert of(*full, *others).growth == "stored +0.0% a week, duration +0.0% a week"
    assert of(*full[:4], *others).growth == "too few full backups over too few days for a trend"


def test_nothing_stored_at_all_is_no_division_by_zero() -> None:
    assert of(*(backup(10 - n, 0) for n in range(6))).growth.startswith("stored +0.0%")
