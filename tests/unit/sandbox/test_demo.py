"""The demo on a slow machine: it tries again, and ends with what failed and what to do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from errors import TemporaryError
from sandbox.demo import demo
from sandbox.demo.demo import last_report
from sandbox.demo.walk import PATIENT, PAUSE_SECONDS, TRIES, Walk


class Machine:
    """Runs commands, each of which ends as it is told, one after the other; the last end holds."""

    def __init__(self, **ends: list[dict[str, Any] | int]) -> None:
        self.ends = ends
        self.ran: list[str] = []
        self.paused: list[float] = []
        self.reports: dict[str, dict[str, Any]] = {}

    def run(self, arguments: Sequence[str]) -> int:
        self.ran.append(" ".join(arguments))
        ends = self.ends.get(arguments[0], [0])
        end = ends.pop(0) if len(ends) > 1 else ends[0]
        if isinstance(end, int):
            return end
        self.reports[arguments[0]] = end
        return 0 if end["state"] == "completed" else 1

    def walk(self) -> Walk:
        return Walk(self.run, lambda command: self.reports.get(command, {}), self.paused.append)


def backups(**outcomes: str) -> dict[str, Any]:
    parts = [
        {"component": name, "outcome": outcome, "reason": f"{name} was too slow"}
        for name, outcome in outcomes.items()
    ]
    good = all(outcome in ("complete", "exists") for outcome in outcomes.values())
    return {"state": "completed" if good else "failed", "backups": parts, "message": "m"}


def proofs(**verdicts: str) -> dict[str, Any]:
    parts = [
        {"backup": f"{name}-1", "component": name, "verdict": verdict, "reason": "no answer"}
        for name, verdict in verdicts.items()
    ]
    good = set(verdicts.values()) <= {"pass", "partial"}
    return {"state": "completed" if good else "failed", "proofs": parts, "message": "m"}


def test_what_was_not_backed_up_in_time_is_backed_up_once_more() -> None:
    machine = Machine(backup=[backups(redis="complete", neo4j="failed"), backups(neo4j="complete")])
    walk = machine.walk()

    assert walk.backup()

    assert machine.ran == ["backup", "backup neo4j"]
    assert machine.paused == [PAUSE_SECONDS]
    assert walk.summary() == []


def test_a_backup_that_fails_each_time_is_named_at_the_end_with_its_cause_and_what_to_do() -> None:
    machine = Machine(backup=[backups(redis="complete", neo4j="failed", emqx="not-attempted"),
                              backups(neo4j="failed")])  # fmt: skip
    walk = machine.walk()

    assert not walk.backup()

    assert machine.ran == ["backup", "backup neo4j emqx", "backup neo4j"][:TRIES]
    failed, cause, advice = walk.summary()
    assert "Back up everything" in failed
    assert "neo4j: neo4j was too slow" in cause
    assert "to do" in advice and "isa doctor" in advice


def test_a_proof_without_a_verdict_is_tried_again_and_a_fail_is_not() -> None:
    machine = Machine(verify=[proofs(redis="fail", nats="error"), proofs(nats="pass")])
    assert machine.walk().verify()
    assert machine.ran == ["verify", "verify nats-1"]

    machine = Machine(verify=[proofs(redis="fail", nats="pass")])
    walk = machine.walk()
    assert not walk.verify()
    assert machine.ran == ["verify"]
    assert "redis-1: no answer" in walk.summary()[1]


def test_a_deploy_goes_on_with_what_is_not_ready() -> None:
    machine = Machine(deploy=[1, 1, 0])
    assert machine.walk().deploy()
    assert machine.ran == ["deploy"] * 3


def test_a_deploy_that_is_blocked_says_by_what() -> None:
    nodes = [{"name": "redis", "outcome": "not-attempted", "reason": ""}]
    report = {"state": "failed", "nodes": nodes, "blocked": ["capacity: no room"], "message": "m"}
    walk = Machine(deploy=[report]).walk()
    assert not walk.deploy()
    assert walk.summary()[1].strip() == "preflight: capacity: no room"


@pytest.mark.parametrize("command", ["deploy", "backup", "verify"])
def test_a_command_that_left_no_report_is_a_failure_too(command: str) -> None:
    machine = Machine()
    machine.ends[command] = [1]
    walk = machine.walk()
    assert not getattr(walk, command)()
    assert "see the output above" in walk.summary()[1]


def test_the_report_is_that_of_a_run_of_this_demo() -> None:
    began = datetime(2026, 11, 23, tzinfo=UTC)
    report = backups(redis="complete")

    def server(updated: datetime) -> httpx.Client:
        def answer(request: httpx.Request) -> httpx.Response:
            assert request.url.path == "/api/artifacts/backup-sandbox-report/latest"
            data = f"```json\n{json.dumps(report)}\n```"
            return httpx.Response(200, json={"data": data, "updated": updated.isoformat()})

        return httpx.Client(transport=httpx.MockTransport(answer), base_url="http://server/api")

    assert last_report(server(began + timedelta(minutes=1)), "backup", began) == report
    assert last_report(server(began - timedelta(days=1)), "backup", began) == {}
    nobody = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(404)))
    assert last_report(nobody, "backup", began) == {}


def test_the_limits_of_the_demo_are_settings() -> None:
    from config.loading import load

    settings = load("sandbox", PATIENT)
    assert settings.deploy.gate_timeout_seconds == 1800


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (TemporaryError("the API server did not start"), "FAILED: the API server did not start"),
        (KeyError("spec"), "FAILED: unexpected KeyError at "),
    ],
)
def test_a_step_that_breaks_off_is_said_without_a_traceback(
    trouble: Exception,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> int:
        raise trouble

    monkeypatch.setattr(demo, "up", fail)
    monkeypatch.setattr("sys.argv", ["demo"])
    with pytest.raises(SystemExit) as ended:
        demo.main()
    assert ended.value.code == 1
    printed = capsys.readouterr().err
    assert words in printed
    assert "Traceback" not in printed
