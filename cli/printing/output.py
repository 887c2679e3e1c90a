"""Everything that `isa` prints: lines for people, JSON for programs, and the two streams below.

The text can hold names of tenants and messages of engines. `say` prints one line whatever the text holds, and a table
(`tables`) keeps it in its cell. The streams escape what other code prints: click quoting an argument, or a library.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from config.text.printable import json_text
from redaction import redact, shown

if TYPE_CHECKING:
    from operations.documents.base import Document


class PlainStream:
    """A stream that shows control characters as text, except newlines, and redacts secrets.

    Args:
        terminal: where it writes to.

    Attributes:
        terminal: for text that is escaped already, and coloured (`cli.printing.tables`).
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
    """Let everything that this process prints pass through plain streams."""
    sys.stdout = cast(TextIO, PlainStream(sys.stdout))
    sys.stderr = cast(TextIO, PlainStream(sys.stderr))


def terminal(*, stderr: bool = False) -> TextIO:
    """The stream below the plain one: for code that writes colours and moves the cursor itself."""
    stream = sys.stderr if stderr else sys.stdout
    return cast(TextIO, getattr(stream, "terminal", stream))


def say(*lines: str, err: bool = False) -> None:
    """Print lines for people: each stays one line, whatever the names in it hold.

    Args:
        lines: without line ends.
        err: on standard error.
    """
    for line in lines:
        click.echo(shown(line), err=err)


def emit(document: Document) -> None:
    """Print the JSON that `--json` promises."""
    click.echo(redact(json_text(document.plain(), indent=2)))
