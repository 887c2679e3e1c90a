"""Entry point of `isa`: finds the commands, and turns errors into exit codes.

0 done, 1 failed, 2 usage or configuration (design: nothing has been changed then), 3 `plan` found changes.
Commands load what they need when they run, so that `isa --help` answers at once (Prefect alone takes 2 s to import).
"""

from __future__ import annotations

import json
import signal
import sys
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, NoReturn

import click

from errors import ConfigurationError, IsaError
from redaction import install, redact

COMMANDS = {
    "plan": "cli.plan:plan",
    "render": "cli.plan:render",
    "deploy": "cli.deploy:deploy",
    "status": "cli.status:status",
    "backup": "cli.backup:backup",
    "backups": "cli.backup:backups",
    "verify": "cli.verify:verify",
    "proofs": "cli.proofs:proofs",
    "restore": "cli.restore:restore",
    "rebuild": "cli.rebuild:rebuild",
    "approve": "cli.rebuild:approve",
    "setup": "cli.setup:setup",
    "notify": "cli.setup:notify",
    "doctor": "cli.doctor:doctor",
    "report": "cli.report:report",
    "retention": "cli.retention:retention",
    "secrets": "cli.secrets:secrets",
}


class Commands(click.Group):
    """The project's own commands, and those that installed packages add (the sandbox)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, own ones first."""
        return [*COMMANDS, *sorted(point.name for point in entry_points(group="isa.commands"))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module behind a name."""
        if cmd_name in COMMANDS:
            module, _, attribute = COMMANDS[cmd_name].partition(":")
            return getattr(import_module(module), attribute)  # type: ignore[no-any-return]
        for point in entry_points(group="isa.commands", name=cmd_name):
            return point.load()  # type: ignore[no-any-return]
        return None


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def isa() -> None:
    """Deploy, watch, back up, prove and rebuild the isa-cloud data platform."""


def main() -> NoReturn:
    """Run `isa` and exit as its errors say."""
    install()
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        code = isa.main(standalone_mode=False)
    except ConfigurationError as exc:
        _report(
            "The configuration is not complete; nothing has been changed.",
            [str(f) for f in exc.faults],
        )
        sys.exit(2)
    except IsaError as exc:
        _report(str(exc), [])
        sys.exit(1)
    except click.ClickException as exc:
        exc.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        _report("stopped", [])
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _report(message: str, details: list[str]) -> None:
    if "--json" in sys.argv:
        click.echo(redact(json.dumps({"error": message, "faults": details})), err=True)
        return
    click.echo(redact(f"isa: {message}"), err=True)
    for detail in details:
        click.echo(redact(f"  • {detail}"), err=True)


def emit(document: Any) -> None:
    """Print the JSON that `--json` promises."""
    click.echo(redact(json.dumps(document, indent=2, default=str)))
