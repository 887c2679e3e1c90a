"""Options that all commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from errors import ConfigurationError, Fault

F = TypeVar("F", bound=Callable[..., Any])

environment = click.option(
    "--env", "environment", envvar="ISA_ENV", required=True, metavar="NAME",
    help="Settings file to use: production, staging, sandbox. Also ISA_ENV.",
)  # fmt: skip
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")


def only(*more: str) -> Callable[[F], F]:
    """Make `--only`, which may be given several times.

    Args:
        more: what may be named beside the components.
    """

    def known(_: click.Context, __: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
        from config.models import COMPONENTS

        nodes = (*more, *COMPONENTS)
        hint = f"known: {', '.join(nodes)}"
        wrong = [name for name in names if name not in nodes]
        if wrong:  # before a run is made of it
            raise ConfigurationError(
                [Fault("--only", f"unknown component {name!r}", hint) for name in wrong]
            )
        return names

    return click.option(
        "--only",
        multiple=True,
        metavar="NODE",
        callback=known,
        help="Only this node and what it needs.",
    )
