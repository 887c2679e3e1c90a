"""Options that all commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

environment = click.option(
    "--env", "environment", envvar="ISA_ENV", required=True, metavar="NAME",
    help="Environment: production, staging or sandbox. Default: ISA_ENV.",
)  # fmt: skip
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")


def only(function: F) -> F:
    """Add `--only`, which may be given several times."""
    return click.option(
        "--only", multiple=True, metavar="NODE", help="Only this node and what it needs."
    )(function)
