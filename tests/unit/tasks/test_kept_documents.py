"""A run of the doctor, or of retention, keeps the document that the command of this name prints."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from cli.output import emit
from components.base import Check
from operations.documents.base import Document
from operations.documents.retention import Locks, Orphans, Retention
from operations.health.findings import Finding, document
from tasks import artifacts
from tasks.artifacts import keep_report, read_report
from tests.contract import checked

FINDINGS = (
    Finding(Check("releases", True, "no release is stuck", 0.5)),
    Finding(Check("leftovers", False, "3 orphaned objects", critical=False), lambda: "removed"),
)
RETENTION = Retention(
    applied=True, backups=(), orphans=Orphans(uploads=0, objects=1, bytes=2), hidden={}, unread={},
    locks=Locks(until=datetime(2026, 12, 7, tzinfo=UTC), extended=4, refused={}),
)  # fmt: skip


@pytest.mark.parametrize(
    ("command", "report"), [("doctor", document(FINDINGS)), ("retention", RETENTION)]
)
def test_a_run_keeps_what_the_command_prints(
    command: str,
    report: Document,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts: dict[str, str] = {}

    class Artifact:
        def __init__(self, kind: str, key: str, description: str) -> None:
            self._key = key

        def insist(self, data: str) -> None:
            texts[self._key] = data

    monkeypatch.setattr(artifacts, "Artifact", Artifact)
    keep_report(report, f"{command}-sandbox")
    emit(report)

    printed = checked([command, "--json"], capsys.readouterr().out)
    assert read_report(texts[f"{command}-sandbox-report"]) == printed
    assert type(report).read(json.loads(json.dumps(printed))) == report
