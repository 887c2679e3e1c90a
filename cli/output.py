"""What `isa` prints, in one place: lines for people, JSON for programs, and the two streams beneath.

Names of tenants are in it, and an engine's own words. `say` prints one line whatever they hold, and a table
(`cli.tables`) keeps them in their cell. The streams show what nobody has thought of: what click says of an argument,
what a library writes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from config.printable import json_text
from redaction import redact, shown

if TYPE_CHECKING:
    from operations.documents.base import Document


class PlainStream:
    """A stream that shows control characters as text, newlines apart, and no secret.

    Args:
        terminal: where it goes.

    Attributes:
        terminal: for text that is shown already, and coloured (`cli.tables`).
    """

    def __init__(self, terminal: TextIO) -> None:
        self.terminal = terminal

    def write(self, text: str) -> int:
        """As `TextIO.write`."""
        self.terminal.write(shown(text, lines=True))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """As `TextIO.writelines`."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.terminal, name)


def install_plain_streams() -> None:
    """Have everything that this process prints go through plain streams."""
    sys.stdout = cast(TextIO, PlainStream(sys.stdout))
    sys.stderr = cast(TextIO, PlainStream(sys.stderr))


def terminal(*, stderr: bool = False) -> TextIO:
    """The stream beneath the plain one: for what writes colours and moves the cursor of its own."""
    stream = sys.stderr if stderr else sys.stdout
    return cast(TextIO, getattr(stream, "terminal", stream))


def say(*lines: str, err: bool = False) -> None:
    """Print lines for people: each is one, whatever the names in it hold.

    Args:
        lines: without their ends.
        err: on standard error.
    """
    for line in lines:
        click.echo(shown(line), err=err)


def emit(document: Document) -> None:
    """Print the JSON that `--json` promises."""
    click.echo(redact(json_text(document.plain(), indent=2)))
