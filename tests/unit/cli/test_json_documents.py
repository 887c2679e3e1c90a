"""What `--json` prints of a run is one document, with a Prefect server and without, however the run ended."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from prefect.states import Cancelled, Completed, Crashed, Failed

from archive.evidence.verdicts import Difference
from cli.main import run
from cli.printing.failures import Reporter
from errors import PermanentError
from operations.backup.component import BackupResult
from operations.backup.nightly import BackupLine, BackupReport
from operations.deploy.run import DeployReport
from operations.documents.runs import Run
from operations.rebuild.report import RebuildReport
from operations.restore.report import RestoreLine, RestoreReport, document
from operations.runner.context import RunContext
from operations.runner.progress import NodeProgress, as_rows
from operations.runner.walk import NodeResult
from operations.verify.proofs import ProofLine, ProofReport, ProofResult
from tasks.pages import artifacts
from tasks.pages.artifacts import keep_report
from tasks.server import runs
from tests.contract import checked

RUN = "9d0f0c3e-0000-4000-8000-000000000001"
REDIS, SAFETY = "redis-20261123T010000Z-abcdef", "redis-20261124T010000Z-abcdef"
NODES = (NodeResult("redis", "upgraded", 3.0), NodeResult("emqx", "failed", 1.0, "it broke"))
STEPS = (NodeResult("fence", "done", 3.0), NodeResult("backup", "failed", 1.0, "it broke"))
DIFFERENCE = Difference(unit="all keys", item="strings", what="2 instead of 3")


@dataclass(frozen=True)
class Command:
    """One command with `--json`.

    Attributes:
        arguments: of it; `--local` is added.
        doing: where it is done, and what is done there.
        report: what it ends with.
        lines: of its table.
    """

    arguments: str
    doing: str
    done: Any
    report: Run
    lines: tuple[NodeProgress, ...]


def commands() -> dict[str, Command]:
    deploy = DeployReport(4.0, NODES, ("quota: too small",))
    backup = BackupReport(
        9.0, (BackupResult("redis", "partial", REDIS, 9, 3, 2.0, "k", "shard 2"),)
    )
    proof = ProofReport(9.0, (ProofResult(REDIS, "redis", "fail", "L1", 0, 2.0, "bad", "valkey"),))
    restore = RestoreReport(
        backup=REDIS,
        component="redis",
        outcome="different",
        safety=SAFETY,
        kept=["old data"],
        not_replaced={"x": "why"},
        differences=(DIFFERENCE,),
        stages={"replace": 2.0},
        reason="strings",
    )
    rebuild = RebuildReport("nats", "rebuild-1", 9.0, STEPS, REDIS, ("pv-1",), True)
    table = (NodeProgress("redis", "done", "upgraded", 3.0), NodeProgress("emqx"))
    steps = (NodeProgress("fence", "done", "done", 3.0), NodeProgress("backup"))
    return {
        "deploy": Command("deploy", "operations.deploy.run.run_deploy", deploy, deploy.document(), table),
        "backup": Command(
            "backup", "operations.backup.nightly.run_backups", backup, backup.document(),
            (BackupLine("redis", "done", "partial", 2.0, "shard 2", id=REDIS), BackupLine("nats")),
        ),
        "verify": Command(
            "verify", "operations.verify.proofs.run_proofs", proof, proof.document(),
            (ProofLine(REDIS, "done", "fail", 2.0, "bad"), ProofLine(SAFETY)),
        ),
        "restore": Command(
            f"restore {REDIS} --yes", "operations.restore.restore.run_restores", [restore],
            document([restore], 2.0),
            (RestoreLine("redis", "done", "different", 2.0, "strings", backup=REDIS),),
        ),
        "rebuild": Command(
            "rebuild nats --approver Ada --ticket T-1", "operations.rebuild.rebuild.run_rebuild", rebuild,
            rebuild.document(), steps,
        ),
    }  # fmt: skip


COMMANDS = commands()


class Server:
    """Has one run that is over, and its artifacts."""

    def __init__(self, state: Any, kept: Mapping[str, str]) -> None:
        self._state, self._kept = state, kept

    def read_deployment_by_name(self, name: str) -> Any:
        return SimpleNamespace(id=UUID(RUN))

    def create_flow_run_from_deployment(self, *_: object, **__: object) -> Any:
        return SimpleNamespace(id=UUID(RUN), name="a-run")

    def read_flow_run(self, _: UUID) -> Any:
        return SimpleNamespace(
            state=self._state, start_time=1, total_run_time=timedelta(seconds=9), work_pool_name="p"
        )

    def read_artifacts(self, artifact_filter: Any, limit: int) -> list[Any]:
        (key,) = artifact_filter.key.any_
        return [SimpleNamespace(data=self._kept[key])] if key in self._kept else []


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a command could reach."""
    from config.loading import load

    settings = load("sandbox", {})
    world = SimpleNamespace(settings=settings)
    world.open_store = lambda: world
    environment = "operations.environment.environment.Environment"
    monkeypatch.setattr(f"{environment}.open_releases", lambda _: world)
    monkeypatch.setattr(f"{environment}.open_store", lambda _: world)
    monkeypatch.setattr("operations.verify.proofs.choose", lambda *_: ())
    manifest = SimpleNamespace(component="redis", id=REDIS)
    plan = SimpleNamespace(manifest=manifest, by_hand="by hand")
    monkeypatch.setattr("operations.restore.plan.plans_of", lambda *_, **__: [plan])
    monkeypatch.setattr("operations.rebuild.plan.plan_rebuild", lambda *_: None)


def printed(
    command: Command, capsys: pytest.CaptureFixture[str], *more: str, code: int = 1
) -> dict[str, Any]:
    """The document on standard output, which its schema takes."""
    arguments = [*command.arguments.split(), "--env", "sandbox", "--json", *more]
    assert run(arguments, Reporter.of(arguments)) == code, capsys.readouterr().err
    return checked(arguments, capsys.readouterr().out)


def local(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    command = COMMANDS[name]
    monkeypatch.setattr(command.doing, lambda *_, **__: command.done)
    return printed(command, capsys, "--local")


def by_server(
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    state: Any,
    report: Run | None = None,
    *,
    code: int = 1,
    kept: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The same by the server: the report as the flow keeps it, in the artifact that the command reads."""
    command, key = COMMANDS[name], f"{name}-sandbox"
    artifacts_kept = {key: json.dumps(as_rows(command.lines)), **(kept or {})}

    class Artifact:
        def __init__(self, kind: str, key: str, description: str) -> None:
            self._key = key

        def insist(self, data: str) -> None:
            artifacts_kept[self._key] = data

    monkeypatch.setattr(artifacts, "Artifact", Artifact)
    monkeypatch.setattr(
        artifacts, "runtime", SimpleNamespace(flow_run=SimpleNamespace(id=UUID(RUN)))
    )
    if report is not None:
        keep_report(report, key)

    @contextmanager
    def connect() -> Iterator[Server]:
        yield Server(state, artifacts_kept)

    monkeypatch.setattr(runs, "connect", connect)
    monkeypatch.setattr(runs, "PREFECT_API_URL", SimpleNamespace(value=lambda: "http://server/api"))
    return printed(command, capsys, code=code)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_report_is_the_same_with_and_without_a_server(
    name: str, engines: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = local(name, monkeypatch, capsys)
    report = COMMANDS[name].report
    there = by_server(name, monkeypatch, capsys, Failed(message="another text"), report)

    assert there == {**report.plain(), "flow_run": RUN}  # what the run kept, as it is
    assert {**there, "flow_run": "", "seconds": here["seconds"], "message": ""} == {
        **here,
        "message": "",
    }


def test_a_good_run_ends_with_zero_and_its_message(
    engines: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = RestoreReport(backup=REDIS, component="redis", outcome="restored", kept=["old data"])
    report = document([good], 2.0)
    found = by_server("restore", monkeypatch, capsys, Completed(message="x"), report, code=0)

    assert (found["state"], found["message"]) == ("completed", "1 restored in 2.0 s")
    assert found["restores"][0]["reason"] == ""


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("state", [Crashed(message="killed"), Cancelled(message="killed")], ids=str)
def test_a_run_that_was_ended_before_it_could_report_tells_what_its_table_tells(
    name: str,
    state: Any,
    engines: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = by_server(name, monkeypatch, capsys, state)

    assert (found["state"], found["message"]) == (state.type.value.lower(), "killed")
    assert (found["flow_run"], found["seconds"]) == (RUN, 9.0)
    rows = next(value for key, value in found.items() if value and isinstance(value, list))
    ends = [row.get("outcome") or row["verdict"] for row in rows]
    assert ends == [line.outcome or "not-attempted" for line in COMMANDS[name].lines]


def test_what_was_restored_before_the_run_was_ended_has_no_reason(
    engines: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (RestoreLine("redis", "done", "restored", 2.0, "old data is kept", backup=REDIS),)
    monkeypatch.setitem(COMMANDS, "restore", replace(COMMANDS["restore"], lines=lines))
    found = by_server("restore", monkeypatch, capsys, Crashed(message="killed"))

    assert [(one["outcome"], one["reason"]) for one in found["restores"]] == [("restored", "")]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_that_fails_with_an_error_is_the_same_document_in_both_modes(
    name: str, engines: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = COMMANDS[name]

    def fail(_: object, context: RunContext, *__: Any, **___: Any) -> None:
        context.publish(list(command.lines))
        raise PermanentError("lease isa-deploy is held")

    monkeypatch.setattr(command.doing, fail)
    here = printed(command, capsys, "--local")
    there = by_server(name, monkeypatch, capsys, Failed(message="lease isa-deploy is held"))

    assert (here["state"], here["message"]) == ("failed", "lease isa-deploy is held")
    assert {**there, "flow_run": "", "seconds": here["seconds"]} == here


def test_a_run_that_was_ended_behind_its_report_has_the_state_of_the_server(
    engines: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = COMMANDS["deploy"].report
    found = by_server("deploy", monkeypatch, capsys, Crashed(message="killed"), report)

    assert (found["state"], found["message"]) == ("crashed", "killed")
    assert found["blocked"] == ["quota: too small"]


@pytest.mark.parametrize("text", ["no JSON", '{"state": "completed"}', "[]", '{"set": "x"}'])
def test_a_report_of_another_version_is_not_used(
    text: str,
    engines: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept = {"rebuild-sandbox-report": f"```json\n{text}\n```"}
    found = by_server("rebuild", monkeypatch, capsys, Failed(message="it broke"), kept=kept)

    assert found["message"] == "it broke"
    assert [step["outcome"] for step in found["steps"]] == ["done", "not-attempted"]
    assert f"the report of flow run {RUN} is not used" in caplog.text


def test_a_name_of_half_a_character_comes_through(
    engines: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = RestoreReport(backup=REDIS, component="redis", not_replaced={"\udc80": "why"})
    there = by_server("restore", monkeypatch, capsys, Failed(), document([report], 2.0))

    assert there["restores"][0]["not_replaced"] == {"\udc80": "why"}
