"""Whatever goes wrong inside, `isa` says it in one line (or one JSON object) and exits with 1."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from cli.main import isa, run
from cli.printing.failures import Reporter, describe
from cli.printing.logs import Line
from redaction import redact
from tests.commands import commands_of
from tests.contract import checked

ENGINE_SECRET = "hunter2-hunter2"
# Every command with arguments that are good enough for it to begin.
COMMANDS = {
    "plan": "plan --env sandbox",
    "render": "render --env sandbox --output rendered",
    "charts": "charts --env sandbox",
    "charts pull": "charts pull --env sandbox",
    "deploy": "deploy --env sandbox --local",
    "status": "status --env sandbox",
    "backup": "backup --env sandbox --local",
    "backup signer": "backup signer --env sandbox",
    "backups": "backups --env sandbox",
    "verify": "verify --env sandbox --local",
    "verify signer": "verify signer --env sandbox",
    "proofs": "proofs --env sandbox",
    "restore": "restore --env sandbox --all --yes --local",
    "rebuild": "rebuild nats --env sandbox --plan",
    "rebuild undo": "rebuild undo nats --env sandbox",
    "rebuild purge": "rebuild purge nats --env sandbox",
    "approve": "approve 9d0f0c3e-0000-4000-8000-000000000000 --name Ada --ticket T-1",
    "refuse": "refuse 9d0f0c3e-0000-4000-8000-000000000000 --name Ada --ticket T-1",
    "setup": "setup --env sandbox",
    "notify": "notify --env sandbox",
    "doctor": "doctor --env sandbox",
    "report": "report --env sandbox",
    "retention": "retention --env sandbox",
    "secrets": "secrets --env sandbox",
    "secrets restore": "secrets restore platform-20260101T000000Z-000000 --env sandbox",
    "wal stream": "wal stream --env sandbox",
    "wal status": "wal status --env sandbox",
    "worker": "worker default",
    "sandbox up": "sandbox up",
    "sandbox down": "sandbox down",
    "sandbox status": "sandbox status",
    "sandbox seed": "sandbox seed",
    "sandbox env": "sandbox env",
}
WITHOUT_JSON = {
    "render",
    "approve",
    "refuse",
    "wal stream",
    "worker",
    "sandbox down",
    "sandbox env",
}


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault deep inside: in the settings, in the Prefect client, in the sandbox."""
    redact.remember(ENGINE_SECRET)

    def fail(*_: object, **__: object) -> None:
        raise KeyError(f"spec of\n{ENGINE_SECRET}")

    monkeypatch.setattr("config.loading._read", fail)
    monkeypatch.setattr("tasks.server.runs.UUID", fail)
    monkeypatch.setattr("tasks.workers.serve.deployments", fail)
    monkeypatch.setattr("sandbox.cluster.Sandbox", fail)


def test_every_command_is_tried_here() -> None:
    assert sorted(commands_of(isa)) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unexpected_exception_is_one_line(
    command: str, broken: None, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = COMMANDS[command].split()

    code = run(arguments, Reporter.of(arguments))

    printed = capsys.readouterr()
    assert (code, printed.out) == (1, "")
    assert printed.err.count("\n") == 1, printed.err
    for part in ("isa: unexpected KeyError at ", "spec of", "-v prints the traceback"):
        assert part in printed.err
    assert ENGINE_SECRET not in printed.err


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - WITHOUT_JSON))
def test_with_json_it_is_one_object(
    command: str, broken: None, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*COMMANDS[command].split(), "--json"]

    code = run(arguments, Reporter.of(arguments))

    printed = capsys.readouterr()
    assert (code, printed.out) == (1, "")
    document = checked(arguments, printed.out, printed.err)
    assert "unexpected KeyError" in document["error"]
    assert document["traceback"] == ""
    assert ENGINE_SECRET not in printed.err


@pytest.mark.parametrize("command", COMMANDS)
def test_v_adds_the_traceback_without_secrets(
    command: str, broken: None, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*COMMANDS[command].split(), "-v"]

    code = run(arguments, Reporter.of(arguments))

    printed = capsys.readouterr()
    assert (code, printed.out) == (1, "")
    assert "Traceback (most recent call last)" in printed.err
    assert "test_unexpected_errors.py" in printed.err
    assert printed.err.splitlines()[-1].startswith("isa: unexpected KeyError at ")
    assert ENGINE_SECRET not in printed.err


def test_v_with_json_puts_the_traceback_into_the_object(
    broken: None, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-v", "plan", "--env", "sandbox", "--json"]

    assert run(arguments, Reporter.of(arguments)) == 1

    document = json.loads(capsys.readouterr().err)
    assert "Traceback (most recent call last)" in document["traceback"]
    assert ENGINE_SECRET not in document["traceback"]


def test_the_place_is_the_innermost_line_of_the_project() -> None:
    def fail() -> None:
        json.loads("{")  # raised in the standard library

    try:
        fail()
    except ValueError as exc:
        line = fail.__code__.co_firstlineno + 1
        assert f"JSONDecodeError at {__name__}:{line}: Expecting" in describe(exc)


def test_what_would_clear_a_terminal_is_not_printed() -> None:
    assert (
        describe(ValueError("a\x1b[2Jb\nc"))
        == r"unexpected ValueError at an unknown place: a\x1b[2Jb\nc"
    )


def test_a_connection_that_breaks_is_an_error_and_not_the_end_of_our_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("config.loading.load", fail)

    assert run(["plan", "--env", "sandbox"], Reporter.of([])) == 1
    assert "unexpected ConnectionError" in capsys.readouterr().err


def test_wrong_usage_with_json_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "--moon", "--json"]

    assert run(arguments, Reporter.of(arguments)) == 2
    assert "--moon" in json.loads(capsys.readouterr().err)["error"]


@pytest.mark.parametrize("verbose", [False, True])
def test_a_librarys_log_has_its_traceback_with_v_only(verbose: bool) -> None:
    try:
        raise ValueError("inside")
    except ValueError:
        record = logging.getLogger("library").makeRecord(
            "library", logging.ERROR, __file__, 1, "it %s", ("broke",), sys.exc_info()
        )

    text = Line(verbose).format(record)

    assert "library: it broke" in text.splitlines()[0]
    assert ("Traceback" in text) is verbose


@pytest.mark.parametrize(
    ("arguments", "variables", "title", "fault"),
    [
        (["plan", "--env", "moon"], {}, "The arguments are wrong", "'moon'"),
        (["worker", "moon"], {}, "The arguments are wrong", "'moon' is not a queue"),
        (
            ["plan", "--env", "sandbox"],
            {"ISA_DEPLOY__MOON": "1"},
            "The configuration is not complete",
            "ISA_DEPLOY__MOON",
        ),
        (["worker", "backups"], {"ISA_ENV": ""}, "The configuration is not complete", "ISA_ENV"),
    ],
)
def test_the_title_says_whether_arguments_or_configuration_are_wrong(
    arguments: list[str],
    variables: dict[str, str],
    title: str,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert run(arguments, Reporter.of(["--json"])) == 2

    printed = json.loads(capsys.readouterr().err)
    assert printed["error"] == f"{title}; nothing has been changed."
    assert fault in printed["faults"][0]
