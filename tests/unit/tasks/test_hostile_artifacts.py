"""Every artifact with a hostile name in each of its texts: the same marks, rows and columns as with a harmless one."""

from __future__ import annotations

import inspect
import json
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from config.text.printable import visible
from operations.documents.runs import Deploy
from operations.report.svg import Drawing
from redaction import redact
from tasks import redacted_errors
from tasks.pages import artifacts, pictures, table
from tasks.pages.artifacts import keep_report, read_report
from tasks.pages.markdown import plain_cells
from tests import hostile, markdown_reader
from tests.hostile_reports import Reports, harmless

REPORTS = Reports(list(hostile.NAMES.values()))
BUILDERS: dict[str, Callable[[Reports], Any]] = {
    "plan_artifact": lambda r: table.plan_artifact(r.plan, r.graph, "sandbox"),
    "status_artifact": lambda r: table.status_artifact(r.status, "sandbox"),
    "proofs_artifact": lambda r: table.proofs_artifact(r.proof, "sandbox"),
    "restore_plan_artifact": lambda r: table.restore_plan_artifact(r.restore_plans, "sandbox"),
    "rebuild_plan_artifact": lambda r: table.rebuild_plan_artifact(r.rebuild_plan, "sandbox"),
    "retention_artifact": lambda r: table.retention_artifact(
        r.retention, "sandbox", applied=True, held=r.held
    ),
    "doctor_artifact": lambda r: table.doctor_artifact(r.checks, "sandbox"),
    "outcome_artifact": lambda r: pictures.outcome_artifact(r.lines, r.graph, "sandbox"),
    "history_artifact": lambda r: pictures.history_artifact(r),  # type: ignore[arg-type]
}


class Server:
    """Stands where artifacts are written."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, str, str]] = []

    def __call__(self, kind: str, key: str, description: str) -> Any:
        server = self

        class Artifact:
            def insist(self, data: str, seconds: float = 0.0) -> None:
                server.kept.append((kind, description, data))

            def write(self, data: str) -> bool:
                self.insist(data)
                return True

        return Artifact()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(artifacts, "Artifact", made)
    monkeypatch.setattr(table, "Artifact", made)
    for module in (table, pictures):
        monkeypatch.setattr(module, "get_run_logger", lambda: logging.getLogger("test"))
    # a picture of every name is minutes: tests of the pictures feed them (tests/unit/operations)
    monkeypatch.setattr(
        "operations.report.figures.backups", lambda one: Drawing("<svg></svg>", one.component)
    )
    monkeypatch.setattr(
        "operations.report.figures.graph", lambda *_: Drawing("<svg></svg>", REPORTS.all)
    )
    monkeypatch.setattr(
        "operations.report.figures.timeline", lambda *_: Drawing("<svg></svg>", REPORTS.all)
    )
    monkeypatch.setattr(
        "operations.report.figures.proofs", lambda _: Drawing("<svg></svg>", REPORTS.all)
    )
    return made


def written(server: Server, build: Callable[[Reports], Any], reports: Reports) -> str:
    server.kept.clear()
    build(reports)
    ((kind, _, data),) = server.kept
    assert kind == "markdown"
    return data


def test_every_builder_of_an_artifact_is_tried_here() -> None:
    found = {
        name
        for module in (table, pictures)
        for name, _ in inspect.getmembers(module, inspect.isfunction)
        if name.endswith("_artifact")
    }

    assert found == set(BUILDERS)


@pytest.mark.parametrize("name", BUILDERS)
def test_hostile_names_make_the_marks_that_harmless_ones_make(
    name: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = harmless(REPORTS)
    monkeypatch.setattr(
        "operations.report.history.read_history", lambda environment: environment.histories
    )
    monkeypatch.setattr(Reports, "settings", type("S", (), {"environment": "x"}), raising=False)

    text, expected = (written(server, BUILDERS[name], r) for r in (REPORTS, plain))

    assert text.replace("\n", "").isprintable()
    assert text.count("\n") == expected.count("\n")
    assert _marks(text) == _marks(expected)


def _marks(text: str) -> Counter[str]:
    """How often each mark is there; a code span is no mark, and a name that is empty needs no bold letters."""
    plain = ("text", "inline", "code_inline", "text_special", "strong_open", "strong_close")
    found = Counter(token.type for token in markdown_reader.tokens(text) if token.type not in plain)
    found["bare link"] = int("bare link" in markdown_reader.marks(text))
    return found


def test_a_table_reads_as_the_names_that_were_put_in(server: Server) -> None:
    rows = markdown_reader.cells(written(server, BUILDERS["doctor_artifact"], REPORTS))

    shown = {visible(redact(name)).strip(" ") for name in REPORTS.names}
    assert {row[0] for row in rows} == {row[2] for row in rows} == shown


def test_the_live_table_is_read_back_with_the_names_that_were_put_in(server: Server) -> None:
    with table.LiveTable("deploy-x", "Deploy") as live:
        live.publish(REPORTS.lines)

    data = server.kept[-1][2]
    assert data.isprintable()
    rows = [plain_cells(row) for row in json.loads(data)]
    assert [row["note"] for row in rows] == [
        visible(redact(name)).strip(" ") for name in REPORTS.names
    ]


@hostile.each()
def test_a_report_holds_the_name_unchanged(name: str, server: Server) -> None:
    server.kept.clear()
    keep_report(
        Deploy(state="failed", seconds=1.0, message=name, nodes=(), blocked=(name,)), "deploy-x"
    )

    ((_, _, data),) = server.kept
    assert data.replace("\n", "").isprintable()
    assert markdown_reader.marks(data) == {"fence"}
    assert read_report(data)["blocked"] == [redact(name)]


@hostile.each()
def test_the_state_of_a_run_is_one_line(name: str) -> None:
    for end in (redacted_errors.completed, redacted_errors.failed, redacted_errors.cancelled):
        assert end(f"no {name}").message == visible(redact(f"no {name}"))
    with pytest.raises(ValueError) as caught, redacted_errors.redacted_errors():
        raise ValueError(f"no {name}")
    assert str(caught.value) == visible(redact(f"no {name}"))
