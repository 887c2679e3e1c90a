"""Entry point of `isa`: finds the commands, and turns errors into exit codes.

0 done, 1 failed, 2 usage or configuration (nothing has been changed then), 3 `plan` found changes. An unexpected
exception is one line too, and exit code 1; its traceback is printed with -v only. Commands import what they need when
they run, so that `isa --help` is fast (Prefect alone takes 2 s to import).
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import FrameType
from typing import Any, NoReturn

import click

from cli.printing.broken_pipe import tolerate_closed_pipes
from cli.printing.failures import Reporter, verbosity
from cli.printing.logs import FORMAT_VARIABLE, log_to_stderr
from cli.printing.output import install_plain_streams
from config.process_environment import clean_process
from errors import InputError, IsaError
from redaction import install

SECTIONS = {
    "Deploy": {
        "plan": "cli.commands.deploy.plan:plan",
        "deploy": "cli.commands.deploy.deploy:deploy",
        "status": "cli.commands.deploy.status:status",
        "render": "cli.commands.deploy.plan:render",
        "charts": "cli.commands.deploy.charts:charts",
    },
    "Back up": {
        "backup": "cli.commands.backup.backup:backup",
        "backups": "cli.commands.backup.backup:backups",
        "retention": "cli.commands.backup.retention:retention",
        "wal": "cli.commands.backup.wal:wal",
    },
    "Verify and restore": {
        "verify": "cli.commands.restore.verify:verify",
        "proofs": "cli.commands.restore.proofs:proofs",
        "restore": "cli.commands.restore.restore:restore",
        "rebuild": "cli.commands.restore.rebuild:rebuild",
        "approve": "cli.commands.restore.rebuild:approve",
        "refuse": "cli.commands.restore.rebuild:refuse",
        "secrets": "cli.commands.restore.secrets:secrets",
    },
    "Operate": {
        "doctor": "cli.commands.operate.doctor:doctor",
        "report": "cli.commands.operate.report:report",
        "setup": "cli.commands.operate.setup:setup",
        "notify": "cli.commands.operate.setup:notify",
        "worker": "cli.commands.operate.worker:worker",
    },
}
COMMANDS = {name: where for section in SECTIONS.values() for name, where in section.items()}


VERBOSE = click.Option(
    ["-v", "--verbose"],
    count=True,
    expose_value=False,  # `cli.printing.failures.verbosity` reads it: it must hold where parsing fails, too
    help="Log waits, retries and slow calls, and tracebacks of unexpected errors; -vv: every call.",
)


@functools.cache
def added() -> dict[str, EntryPoint]:
    """Return the commands of installed packages by name; this reads the metadata of every package."""
    return {point.name: point for point in entry_points(group="isa.commands")}


class Commands(click.Group):
    """The project's own commands, and those that installed packages add (the sandbox)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Command names, the project's own first."""
        return [*COMMANDS, *sorted(added())]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands of each section with the first sentence of their help."""
        sections = {title: list(section) for title, section in SECTIONS.items()}
        if added():
            sections["Try it"] = sorted(added())
        width = max(len(name) for name in self.list_commands(ctx))
        for title, names in sections.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            rows = [
                (name.ljust(width), command.get_short_help_str(formatter.width))
                for name, command in commands
                if command is not None
            ]
            with formatter.section(title):
                formatter.write_dl(rows)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module behind a name."""
        if cmd_name in COMMANDS:
            module, _, attribute = COMMANDS[cmd_name].partition(":")
            return _with_verbose(getattr(import_module(module), attribute))
        point = added().get(cmd_name)
        return _with_verbose(point.load()) if point else None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named.

        Raises:
            ConnectionError: of a connection that broke. Click takes every EPIPE for the end of its output's reader
                (`click.core.Command.main`) and exits with 1 and without a word.
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError as exc:
            broken = ConnectionError(exc.strerror or "broken pipe")
            raise broken.with_traceback(exc.__traceback__) from None


@click.command(
    cls=Commands, params=[VERBOSE], context_settings={"help_option_names": ["-h", "--help"]}
)
def isa() -> None:
    """Deploy, back up, verify, restore and rebuild the isa-cloud data platform."""


def main() -> NoReturn:
    """Run `isa` and exit with the code of its result."""
    clean_process()
    install()
    tolerate_closed_pipes()
    install_plain_streams()
    signal.signal(signal.SIGTERM, _interrupt)
    reporter = Reporter.of(sys.argv[1:])
    log_to_stderr(verbosity(sys.argv[1:]), os.environ.get(FORMAT_VARIABLE, ""))
    threading.excepthook = lambda args: reporter.unexpected(args.exc_value or args.exc_type())
    sys.exit(run(sys.argv[1:], reporter))


def _interrupt(signal_number: int, frame: FrameType | None) -> NoReturn:
    """End a command on SIGTERM in the same way as on Ctrl-C."""
    raise KeyboardInterrupt


def run(arguments: Sequence[str], reporter: Reporter) -> int:
    """Run one command line.

    Args:
        arguments: without the program's name.
        reporter: prints why it failed.

    Returns:
        The exit code.
    """
    try:
        code = isa.main(list(arguments), prog_name="isa", standalone_mode=False)
    except InputError as exc:
        reporter.failed(
            f"{exc.title}; nothing has been changed.", [str(fault) for fault in exc.faults]
        )
        return 2
    except IsaError as exc:
        reporter.failed(str(exc))
        return 1
    except click.ClickException as exc:
        reporter.misused(exc)
        return 2
    except (KeyboardInterrupt, click.Abort):
        reporter.failed("stopped")
        return 130
    except Exception as exc:
        reporter.unexpected(exc)
        return 1
    return code if isinstance(code, int) else 0


def _with_verbose(command: click.Command) -> click.Command:
    """A command with the option -v, as all commands have it."""
    if VERBOSE not in command.params:
        command.params.append(VERBOSE)
    for inner in getattr(command, "commands", {}).values():
        _with_verbose(inner)
    return command
