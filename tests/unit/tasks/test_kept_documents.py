"""A run of the doctor, or of retention, keeps the document that the command of this name prints."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from cli.printing.output import emit
from components.base import Check
from flows.doctor import conclude
from operations.documents.base import Document
from operations.documents.retention import Locks, Orphans, Retention
from operations.health.findings import Finding, document
from tasks.pages import artifacts
from tasks.pages.artifacts import keep_report, read_report
from tests.contract import checked

FINDINGS = (
    Finding(Check("releases", True, "no release is stuck", 0.5)),
    Finding(Check("leftovers", False, "3 orphaned objects", critical=False), lambda: "removed"),
)
RETENTION = Retention(
    applied=True, backups=(), orphans=Orphans(uploads=0, objects=1, bytes=2), hidden={}, unread={},
    locks=Locks(until=datetime(2026, 12, 7, tzinfo=UTC), extended=4, refused={}),
)  # fmt: skip


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What a run keeps, by key."""
    kept: dict[str, str] = {}

    class Artifact:
        def __init__(self, kind: str, key: str, description: str) -> None:
            self._key = key

        def insist(self, data: str) -> None:
            kept[self._key] = data

    monkeypatch.setattr(artifacts, "Artifact", Artifact)
    return kept


@pytest.mark.parametrize(
    ("command", "report"), [("doctor", document(FINDINGS)), ("retention", RETENTION)]
)
def test_a_run_keeps_what_the_command_prints(
    command: str, report: Document, texts: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    keep_report(report, f"{command}-sandbox")
    emit(report)

    printed = checked([command, "--json"], capsys.readouterr().out)
    assert read_report(texts[f"{command}-sandbox-report"]) == printed
    assert type(report).read(json.loads(json.dumps(printed))) == report


@pytest.mark.parametrize(("critical", "state"), [(False, "COMPLETED"), (True, "FAILED")])
def test_a_run_of_the_doctor_keeps_its_findings_and_fails_on_a_critical_one(
    critical: bool, state: str, texts: dict[str, str]
) -> None:
    stuck = Finding(Check("runs", False, "one is stuck", critical=critical))
    end = conclude([*FINDINGS, stuck], "sandbox")
    assert (end.type.value, "runs: one is stuck" in (end.message or "")) == (state, True)
    assert read_report(texts["doctor-sandbox-report"]) == document([*FINDINGS, stuck]).plain()
    assert "doctor-sandbox" in texts
