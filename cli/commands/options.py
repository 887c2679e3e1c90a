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


class JsonOption(click.Option):
    """`--json`, with what is printed then.

    Args:
        documents: option that changes it, "" where none does → its model.
    """

    def __init__(self, *arguments: Any, documents: dict[str, str], **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.documents = documents


def prints(document: str, **others: str) -> Callable[[F], F]:
    """Add `--json`.

    Args:
        document: what is printed: module and class, `operations.documents.runs:Deploy`. It is a name, since
            `isa --help` loads every command and no document.
        others: option → what is printed with it.
    """
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON instead of tables.", cls=JsonOption,
        documents={"": document, **others},
    )  # fmt: skip


def only(function: F) -> F:
    """Add `--only`, which can be given several times."""
    return click.option(
        "--only", multiple=True, metavar="NODE", help="Only this node and what it needs."
    )(function)
