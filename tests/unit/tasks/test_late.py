"""After an outage only the newest late run of a schedule does its work."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
import yaml
from prefect.client.schemas.objects import FlowRun

from config.loading import ROOT
from errors import TemporaryError
from tasks import late
from tasks.late import reason, superseded

FLOW = UUID("9d0f0c3e-0000-4000-8000-000000000001")
NIGHT = datetime(2026, 11, 23, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DUE, SAMPLE = {"which": "due"}, {"which": "sample"}


def run(planned: datetime, parameters: dict[str, Any] = DUE) -> FlowRun:
    at = cast(Any, planned)
    return FlowRun(flow_id=FLOW, name="n", parameters=parameters, expected_start_time=at)


NIGHTS = [run(NIGHT + DAY * number) for number in range(5)]  # the last two are still to come
NOW = NIGHT + 2 * DAY + timedelta(hours=14)


@pytest.mark.parametrize(("number", "works"), [(0, False), (1, False), (2, True)])
def test_of_three_missed_nights_the_newest_does_its_work(number: int, works: bool) -> None:
    found = reason(NIGHTS[number], NIGHTS, NOW)
    assert (found == "") is works
    if not works:
        assert "scheduled for 2026-11-25 01:00 UTC does the work" in found
        assert f"scheduled for 2026-11-{23 + number} 01:00 UTC and started too late" in found


def test_a_night_lasts_until_the_next_one_is_due() -> None:
    last, planned = NIGHTS[2], NIGHT + 2 * DAY
    assert reason(last, NIGHTS, planned + timedelta(hours=23, minutes=59)) == ""
    assert reason(last, NIGHTS, planned + DAY)


def test_another_schedule_of_the_deployment_takes_no_ones_place() -> None:
    daily = [run(NIGHT + DAY * number) for number in range(3)]
    sample = run(NIGHT, SAMPLE)
    assert reason(sample, daily, NOW) == ""
    assert reason(sample, [*daily, run(NIGHT + DAY, SAMPLE)], NOW)


class Client:
    def __init__(self, runs: list[FlowRun] | None) -> None:
        self.runs, self.asked = runs, 0

    def read_flow_run(self, identity: UUID) -> FlowRun:
        if self.runs is None:
            raise TemporaryError("the server is away")
        return NIGHTS[0]

    def read_flow_runs(self, **_: object) -> list[FlowRun]:
        self.asked += 1
        return self.runs or []


@pytest.fixture
def night(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What Prefect says of the run that asks."""
    made = SimpleNamespace(tags=["auto-scheduled", "isa-cloud"], id=str(FLOW))
    runtime = SimpleNamespace(flow_run=made, deployment=SimpleNamespace(id=str(FLOW)))
    monkeypatch.setattr(late, "runtime", runtime)
    return made


def served(monkeypatch: pytest.MonkeyPatch, client: Client) -> Client:
    @contextmanager
    def connect() -> Iterator[Client]:
        yield client

    monkeypatch.setattr(late, "connect", connect)
    monkeypatch.setattr(late, "get_run_logger", lambda: SimpleNamespace(warning=lambda *_: None))
    return client


def test_a_run_of_a_schedule_asks_the_server(
    night: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(monkeypatch, Client(NIGHTS))
    assert "nothing was done" in superseded()


def test_a_run_that_somebody_started_is_never_too_late(
    night: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    night.tags = ["isa-cloud"]
    client = served(monkeypatch, Client(NIGHTS))
    assert superseded() == ""
    assert client.asked == 0


def test_a_server_that_is_away_leaves_no_work_undone(
    night: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(monkeypatch, Client(None))
    assert superseded() == ""


def scheduled_flows() -> list[str]:
    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    return sorted({one["entrypoint"] for one in declared if one.get("schedules")})


@pytest.mark.parametrize("entrypoint", scheduled_flows())
def test_every_flow_that_has_a_schedule_asks_before_it_works(entrypoint: str) -> None:
    file, _, name = entrypoint.partition(":")
    tree = ast.parse((ROOT / file).read_text())
    (flow,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    (body,) = (statement for statement in flow.body if isinstance(statement, ast.With))
    assert ast.unparse(body.body[0]) == "if (over := superseded()):\n    return completed(over)"
