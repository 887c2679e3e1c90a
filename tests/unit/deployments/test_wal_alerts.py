"""The alerts on the stream of WAL ask for what it serves, and fire where the doctor has a finding."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import yaml

from config.loading import ROOT
from operations.documents.wal import WalSlot
from operations.wal.checks import FILLING, RECOVERY_POINT_SECONDS
from operations.wal.metrics import metrics
from tests.promql import Samples, evaluate, samples, selectors
from tests.unit.archive.wal.history import NOON
from tests.unit.operations.test_wal_checks import GIB, NOTE

(GROUP,) = yaml.safe_load((ROOT / "deployments/monitoring/wal-alerts.yaml").read_text())["groups"]
RULES: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in GROUP["rules"]}
BACKUP = "isa_cloud_last_success_backup_timestamp_seconds"


def served(backup_hours: float = 3, **note: Any) -> Samples:
    """Metrics of a stream, and of a backup that began some hours ago."""
    found = samples(metrics(replace(NOTE, **note), "test", "postgresql"))
    (labels,) = found["isa_cloud_wal_streaming"]
    at = NOON - timedelta(hours=backup_hours)
    return {**found, BACKUP: {labels: at.timestamp()}}


def firing(there: Samples) -> set[str]:
    return {name for name, rule in RULES.items() if evaluate(rule["expr"], there, NOON.timestamp())}


def test_a_stream_that_stores_fires_nothing() -> None:
    assert firing(served()) == set()
    assert firing({}) == {"WalStreamAbsent"}


@pytest.mark.parametrize(
    ("note", "alert"),
    [
        ({"recovery_point_seconds": RECOVERY_POINT_SECONDS + 1}, "WalRecoveryPointTooOld"),
        ({"diverged": "another history"}, "WalDiverged"),
        ({"gaps": 1, "last_gap": NOON - timedelta(hours=1)}, "WalGap"),
        ({"slots": (WalSlot(member="node-0", held_bytes=11 * GIB, limit_bytes=20 * GIB),)}, "WalSlotFilling"),
        ({"spool_bytes": 3 * GIB}, "WalSpoolFilling"),
    ],
)  # fmt: skip
def test_each_alert_fires_for_its_fault(note: dict[str, Any], alert: str) -> None:
    assert firing(served(**note)) == {alert}


def test_a_gap_is_closed_by_a_backup() -> None:
    assert firing(served(backup_hours=1, last_gap=NOON - timedelta(hours=2))) == set()


def test_limits_and_metrics_are_those_of_the_code_and_the_runbook_explains_each_alert() -> None:
    assert f"> {RECOVERY_POINT_SECONDS:.0f}" in RULES["WalRecoveryPointTooOld"]["expr"]
    assert f"> {FILLING} *" in RULES["WalSlotFilling"]["expr"]
    page = (ROOT / "docs/runbooks/postgresql.md").read_text()
    there = served(last_gap=NOON)
    for name, rule in RULES.items():
        assert f"| {name} |" in page
        assert all(metric in there for metric, _ in selectors(rule["expr"]))
