"""Every command of `isa` with hostile names in all that it shows: as many lines as with harmless ones, all of it text.

And the other way round: a hostile name on the command line is refused as the text that it is.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from cli.json_reference import documents
from cli.main import isa, run
from cli.printing.failures import Reporter
from config.text.printable import visible
from operations.runner.context import RunContext
from operations.runner.progress import as_rows
from redaction import redact
from tasks.server.notifications import Sent
from tasks.server.runs import Ended, Run
from tests import hostile
from tests.commands import commands_of
from tests.contract import document_of
from tests.hostile_reports import Reports, harmless, texts

REPORTS = Reports(list(hostile.NAMES.values()))
# A row costs milliseconds, and a name of printable characters tries the same wherever it stands in a text.
FEWER = Reports(hostile.grouped())
RUN = UUID("9d0f0c3e-0000-4000-8000-000000000001")
WITHOUT_ENVIRONMENT = ("sandbox", "approve", "refuse", "worker")
SET = "redis-20261123T010000Z-abcdef"


@dataclass(frozen=True)
class Case:
    """A command, and what it shows.

    Attributes:
        arguments: of it.
        shows: what its use cases answer, by where they stand.
        json: whether it has `--json`, with all names in it.
    """

    arguments: str
    shows: Callable[[Reports], dict[str, Any]]
    json: bool = True


def always(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def running(report: Any, reports: Reports) -> Callable[..., Any]:
    """A use case that shows its progress and ends with a report."""

    def run_it(_: object, context: RunContext, *__: Any, **___: Any) -> Any:
        context.publish(reports.lines)
        return report

    return run_it


def by_server(reports: Reports, **more: Any) -> dict[str, Any]:
    """A run of the Prefect server that ends without a report, so that its table alone tells of it."""
    rows = [{**row, **dict.fromkeys(more, row["note"])} for row in as_rows(reports.lines)]
    for row in rows:
        row |= {key: value for key, value in more.items() if isinstance(value, int)}

    def follow(run: Run, key: str, show: Any, warn: Any, paused: Any) -> Ended:
        show(rows)
        warn(f"no worker: {reports.all}")
        paused(run)
        return Ended("failed", 1.0, rows, reports.all, str(run.id))

    return {
        "tasks.server.runs.start_run": always(Run(RUN, reports.all, f"http://ui/{reports.all}")),
        "tasks.server.runs.follow": follow,
        "tasks.server.runs.answer": always(None),
    }


def world(reports: Reports) -> dict[str, Any]:
    from config.loading import load

    made = SimpleNamespace(
        settings=load("sandbox", {}),
        catalogue=always(reports.catalogue),
        releases=SimpleNamespace(components=always(["redis"])),
        config=None,
        verify_identity=always(""),
    )
    made.open_store = always(made)
    return {
        "operations.environment.environment.Environment.open_releases": always(made),
        "operations.environment.environment.Environment.open_store": always(made),
        "operations.restore.plan.plans_of": always(reports.restore_plans),
        "operations.rebuild.plan.plan_rebuild": always(reports.rebuild_plan),
        "operations.verify.proofs.choose": always(()),
        "operations.deploy.plan.missing_secrets": always([]),
    }


def sandbox(reports: Reports) -> dict[str, Any]:
    names = reports.names
    words = dict.fromkeys(("host", "member", "secret", "user"), reports.all)
    member = {"port": 1, "real": True, **words}
    store = dict.fromkeys(("endpoint", "bucket", "access_key", "secret_key"), reports.all)
    document = {
        "name": reports.all, "up": True, "processes": {f"{n} {at}": at for at, n in enumerate(names)},
        "kubeconfig": reports.all, "object_store": store, "age_identity_file": reports.all,
        "engines": {f"{n} {at}": [member] for at, n in enumerate(names)},
        "prefect_api": reports.all, "prefect_ui": reports.all, "prefect_login_file": reports.all,
    }  # fmt: skip
    made = SimpleNamespace(
        up=always(document), status=always(document), down=always(None), settings_environ=always({}),
        environ=always({f"ISA_{at}": n for at, n in enumerate(names)}),
    )  # fmt: skip
    room = SimpleNamespace(status=always({"processes": {}}), down=always(None), environ=always({}))
    seeded = [
        dataclass_of(component=n, counts={f"{n} {at}": 1}, seconds=1.0)
        for at, n in enumerate(names)
    ]
    return {
        "sandbox.cluster.Sandbox": always(made),
        "sandbox.control_room.ControlRoom": always(room),
        "sandbox.seed.seed_all": always(seeded),
        "cluster.kube.Kube.connect": always(None),
    }


def dataclass_of(**values: Any) -> Any:
    from sandbox.seed import Seeded

    return Seeded(**values)


def streaming(reports: Reports) -> dict[str, Any]:
    """A stream whose faults hold every name."""

    def run(environment: Any, context: Any, *_: Any) -> None:
        for name in reports.names:
            context.tell(f"interrupted: {name}")

    return {
        "operations.wal.service.require_enabled": always(None),
        "operations.wal.service.run_stream": run,
        "signal.signal": always(None),
    }


CASES = {
    "plan": Case("plan", lambda r: {"operations.deploy.run.checked_plan": always(r.plan)}),
    "render": Case(
        "render --output OUTPUT",
        lambda r: {"operations.environment.render_files.write_rendered": always(None)},
        json=False,
    ),
    "charts": Case("charts", lambda r: {"operations.environment.charts.chart_states": always(r.charts)}),
    "charts pull": Case(
        "charts pull", lambda r: {"operations.environment.charts.pull_charts": always(r.charts)}
    ),
    "deploy": Case("deploy", lambda r: by_server(r)),
    "deploy here": Case(
        "deploy --local", lambda r: {"operations.deploy.run.run_deploy": running(r.deploy, r)}
    ),
    "status": Case("status", lambda r: {"operations.health.status.read_status": always(r.status)}),
    "backup": Case(
        "backup", lambda r: by_server(r, id="", bytes_read=9, bytes_stored=9, manifest="")
    ),
    "backup here": Case(
        "backup --local", lambda r: {"operations.backup.nightly.run_backups": running(r.backup, r)}
    ),
    "backup signer": Case(
        "backup signer",
        lambda r: {
            "operations.backup.prerequisites.read_worker_key": always(None),
            "archive.signing.public_half": always(r.all),
        },
    ),
    "backups": Case("backups", world),
    "verify": Case("verify", lambda r: by_server(r, level="", compared=9, scratch="")),
    "verify here": Case(
        "verify --local", lambda r: {"operations.verify.proofs.run_proofs": running(r.proof, r)}
    ),
    "verify signer": Case("verify signer", lambda r: {"archive.evidence.verdicts.signer_of": always(r.all)}),
    "proofs": Case("proofs", lambda r: {"operations.health.freshness.read_freshness": always(r.freshness)}),
    "restore": Case(f"restore {SET} --yes", lambda r: by_server(r, backup="", safety="")),
    "restore plan": Case(f"restore {SET} --plan", world),
    "restore here": Case(
        f"restore {SET} --yes --local",
        lambda r: {"operations.restore.restore.run_restores": running(r.restores, r)},
    ),
    "rebuild": Case("rebuild nats", lambda r: by_server(r)),
    "rebuild plan": Case("rebuild nats --plan", world),
    "rebuild here": Case(
        "rebuild nats --local --approver Ada --ticket T-1",
        lambda r: {"operations.rebuild.rebuild.run_rebuild": running(r.rebuild, r)},
    ),
    "rebuild undo": Case(
        "rebuild undo nats",
        lambda r: {
            "operations.rebuild.reinstall.undo_plan": always(r.way),
            "click.prompt": always("nats"),
            "operations.rebuild.reinstall.undo": lambda _, context, __: [context.tell(n) or n for n in r.names],
        },
    ),
    "rebuild purge": Case(
        "rebuild purge nats", lambda r: {"operations.rebuild.reinstall.purge": always(r.way.volumes)}
    ),
    "approve": Case(f"approve {RUN} --name Ada --ticket T-1", lambda r: by_server(r), json=False),
    "refuse": Case(f"refuse {RUN} --name Ada --ticket T-1", lambda r: by_server(r), json=False),
    "setup": Case("setup", lambda r: {"tasks.server.setup.set_up": always(r.all)}),
    "notify": Case(
        "notify",
        lambda r: {"tasks.server.notifications.send_test": always([Sent(n, False, 1, n) for n in r.names])},
    ),
    "doctor": Case("doctor", lambda r: {"flows.doctor.examine": always(r.doctor)}),
    "report": Case(
        "report --output PAGE",
        lambda r: {
            "flows.report.collect": always(r.report),
            "operations.report.html.as_html": always(""),  # tests/unit/operations/test_hostile_page.py
        },
    ),
    "retention": Case(
        "retention --apply",
        lambda r: {
            "operations.backup.retention.plan_retention": always(r.retention),
            "operations.backup.retention.apply_retention": always(r.held),
            "operations.backup.retention.extend_locks": always(r.extension),
        },
    ),
    "secrets restore": Case(
        f"secrets restore {SET}", lambda r: {"operations.restore.credentials.reinstate": always(r.reinstated)}
    ),
    "wal status": Case("wal status", lambda r: {"operations.wal.status.read_wal": always(r.wal)}),
    "wal stream": Case("wal stream", streaming, json=False),
    "worker": Case("worker QUEUE", lambda r: {"tasks.workers.serve.serve": always(None)}, json=False),
    "sandbox up": Case("sandbox up", sandbox),
    "sandbox down": Case("sandbox down", sandbox, json=False),
    "sandbox status": Case("sandbox status", sandbox),
    "sandbox seed": Case("sandbox seed", sandbox),
    "sandbox env": Case("sandbox env", sandbox, json=False),
}  # fmt: skip


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A terminal on which no line is folded."""
    monkeypatch.setattr("cli.printing.tables.WIDE", 1_000_000)
    return tmp_path


def printed(
    case: Case, reports: Reports, here: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[str, str]:
    output = " ".join(name for name in reports.names if hostile.ARGUMENT(name))
    files = {"OUTPUT": output, "PAGE": str(here / "page.html")}
    arguments = [files.get(part, part) for part in case.arguments.split()] + list(more)
    if arguments[0] not in WITHOUT_ENVIRONMENT:
        arguments += ["--env", "sandbox"]
    with pytest.MonkeyPatch.context() as patches:
        for where, what in {**world(reports), **case.shows(reports)}.items():
            patches.setattr(where, what)
        code = run(arguments, Reporter.of(arguments))
    captured = capsys.readouterr()
    assert "unexpected" not in captured.err[:20], captured.err
    assert code in (0, 1, 3), captured.err
    return captured.out, captured.err


def test_every_command_is_tried_here() -> None:
    tried = {" ".join(case.arguments.split()[:2]) for case in CASES.values()}
    for command in commands_of(isa):
        assert any(f"{one} ".startswith(f"{command} ") for one in tried), command


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_name_adds_no_line_and_no_control_character(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = printed(CASES[name], FEWER, here, capsys)
    expected = printed(CASES[name], harmless(FEWER), here, capsys)

    for text, plain in zip(shown, expected, strict=True):
        for line in text.split("\n"):
            assert line.isprintable(), line
        assert len(text.split("\n")) == len(plain.split("\n"))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.json])
def test_json_holds_every_name_unchanged(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = printed(CASES[name], REPORTS, here, capsys, "--json")

    assert out.replace("\n", "").isprintable() and err.replace("\n", "").isprintable()
    assert out, err
    document = json.loads(out)
    command = document_of([*CASES[name].arguments.split(), "--json"])
    assert documents()[command].read(document).plain() == document  # every key, and no other
    found = "\n".join(texts(document))
    for hostile_name in REPORTS.names:
        assert redact(hostile_name) in found


REFUSED = (
    "backup {}", "backup {} --local", "backup --slot {}", "backups {}", "verify {}", "proofs {}",
    "restore {} --yes", "rebuild {} --plan", "rebuild undo {}", "rebuild nats --plan --restore {}",
    "rebuild nats --local --approver {} --ticket T-1", "rebuild nats --local --approver Ada --ticket {}",
    "approve {} --name Ada --ticket T-1", f"approve {RUN} --name {{}} --ticket T-1",
    "retention {}", "secrets restore {}", "deploy --only {}", "deploy --local --only {}", "status --only {}",
    *(f"{command} --env {{}}" for command in ("plan", "charts", "doctor", "setup", "notify", "report", "status")),
    *(f"sandbox {command} --name {{}}" for command in ("up", "down", "status", "seed", "env")),
)  # fmt: skip
OTHERS = [  # what is no option, and no name that a slot or a sandbox may have
    name for name in hostile.NAMES.values()
    if hostile.ARGUMENT(name) and not name.startswith("-") and not re.fullmatch(r"[\w.-]*", name, re.ASCII)
]  # fmt: skip
MARKED = [
    name for name in OTHERS if set("<>[]`*|\\\r\n") & set(name)
]  # what no approver's name may hold


@pytest.mark.parametrize("command", REFUSED)
def test_a_hostile_name_on_the_command_line_is_refused_as_text(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*_: object, **__: object) -> None:
        raise AssertionError("something was asked")

    monkeypatch.setattr("cluster.kube.Kube.connect", reached)
    monkeypatch.setattr("tasks.server.runs.connect", reached)
    for name in MARKED if "approve" in command else OTHERS:
        arguments = [name if part == "{}" else part for part in shlex.split(command)]
        if arguments[0] not in WITHOUT_ENVIRONMENT and "--env" not in arguments:
            arguments += ["--env", "sandbox"]

        code = run(arguments, Reporter.of(arguments))

        printed = capsys.readouterr()
        assert (code, printed.out) == (2, ""), (name, printed.err)
        lines = printed.err.split("\n")
        assert all(line.isprintable() for line in lines), printed.err
        assert len(lines) == 3, printed.err
        shown = visible(redact(repr(name)))
        assert shown in lines[1], (shown, lines[1])
