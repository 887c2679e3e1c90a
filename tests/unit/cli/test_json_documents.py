"""What `--json` prints of a run has one shape, with a Prefect server and without; the reference names every key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from prefect.states import Completed, Crashed, Failed

from archive.evidence import Difference
from cli.failures import Reporter
from cli.main import run
from config.loading import ROOT
from flows import runs
from operations.backup.component import BackupResult
from operations.backup.nightly import BackupLine, BackupReport
from operations.deploy.run import DeployReport
from operations.rebuild.rebuild import RebuildReport
from operations.restore.restore import RestoreLine, RestoreReport, as_json
from operations.runner.progress import NodeProgress, as_rows
from operations.runner.walk import NodeResult
from operations.verify.proofs import ProofLine, ProofReport, ProofResult
from tasks import artifacts
from tasks.artifacts import keep_report

RUN = "9d0f0c3e-0000-4000-8000-000000000001"
REDIS, SAFETY = "redis-20261123T010000Z-abcdef", "redis-20261124T010000Z-abcdef"
NODES = (NodeResult("redis", "upgraded", 3.0), NodeResult("emqx", "failed", 1.0, "it broke"))
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
    report: dict[str, Any]
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
        left={"x": "why"},
        differences=(DIFFERENCE,),
        stages={"replace": 2.0},
        reason="strings",
    )
    rebuild = RebuildReport("nats", "rebuild-1", 9.0, NODES, REDIS, ("pv-1",), True)
    table = (NodeProgress("redis", "done", "upgraded", 3.0), NodeProgress("emqx"))
    return {
        "deploy": Command("deploy", "operations.deploy.run.run_deploy", deploy, deploy.as_json(), table),
        "backup": Command(
            "backup", "operations.backup.nightly.run_backups", backup, backup.as_json(),
            (BackupLine("redis", "done", "partial", 2.0, "shard 2", id=REDIS), BackupLine("nats")),
        ),
        "verify": Command(
            "verify", "operations.verify.proofs.run_proofs", proof, proof.as_json(),
            (ProofLine(REDIS, "done", "fail", 2.0, "bad"), ProofLine(SAFETY)),
        ),
        "restore": Command(
            f"restore {REDIS} --yes", "operations.restore.restore.run_restores", [restore],
            as_json([restore], 2.0),
            (RestoreLine("redis", "done", "different", 2.0, "strings", backup=REDIS),),
        ),
        "rebuild": Command(
            "rebuild nats --approver Ada --ticket T-1", "operations.rebuild.rebuild.run_rebuild", rebuild,
            rebuild.as_json(), table,
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


def printed(command: Command, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    arguments = [*command.arguments.split(), "--env", "sandbox", "--json", *more]
    code = run(arguments, Reporter.of(arguments))
    out, err = capsys.readouterr()
    assert code == 1, err  # none of these reports is good
    document: dict[str, Any] = json.loads(out)
    return document


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
    *,
    reports: bool,
) -> dict[str, Any]:
    """The same by the server: the report as the flow keeps it, in the artifact that the command reads."""
    command, kept = COMMANDS[name], {}
    key = f"{name}-sandbox"
    kept[key] = json.dumps(as_rows(command.lines))

    class Artifact:
        def __init__(self, kind: str, key: str, description: str) -> None:
            self._key = key

        def insist(self, data: str) -> None:
            kept[self._key] = data

    monkeypatch.setattr(artifacts, "Artifact", Artifact)
    if reports:
        keep_report(command.report, key)

    @contextmanager
    def connect() -> Iterator[Server]:
        yield Server(state, kept)

    monkeypatch.setattr(runs, "connect", connect)
    monkeypatch.setattr(runs, "PREFECT_API_URL", SimpleNamespace(value=lambda: "http://server/api"))
    return printed(command, capsys)


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if type(value) in (int, float) else type(value).__name__


def test_a_report_is_the_same_whoever_ran_it(
    engines: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in COMMANDS:
        here = local(name, monkeypatch, capsys)
        there = by_server(name, monkeypatch, capsys, Failed(message=here["message"]), reports=True)
        assert shape(there) == shape(here), name
        assert (here["flow_run"], there["flow_run"]) == ("", RUN)
        assert {**there, "flow_run": "", "seconds": here["seconds"]} == here, name


@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_that_was_ended_before_it_could_report_has_the_same_keys(
    name: str,
    engines: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = local(name, monkeypatch, capsys)
    crashed = by_server(name, monkeypatch, capsys, Crashed(message="killed"), reports=False)
    assert set(crashed) == set(here)
    assert (crashed["state"], crashed["message"]) == ("crashed", "killed")
    for key, value in here.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            assert set(crashed[key][0]) == set(value[0]), key


def test_a_run_that_ends_well_says_so() -> None:
    ended = runs.Ended("completed", 1.0, [], "all well", RUN, report={"state": "failed"})
    assert ended.as_json({})["state"] == "completed"  # the server's word, which has the last one
    assert Completed().is_completed()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_key_is_documented(
    name: str, engines: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs/reference/json.md").read_text()
    (section,) = (part for part in text.split("\n## ") if part.startswith(f"isa {name}\n"))
    documented = set(re.findall(r"^\| `([\w.\[\]]+)` \|", text.split("\n## ")[1] + section, re.M))

    def keys(value: Any, path: str = "") -> Iterator[str]:
        if isinstance(value, dict) and path not in ("restores[].stages", "restores[].left"):
            for key, part in value.items():
                yield from keys(part, f"{path}.{key}" if path else key)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield from keys(value[0], f"{path}[]")
        else:
            yield path

    assert set(keys(local(name, monkeypatch, capsys))) == documented
