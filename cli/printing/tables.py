"""Tables for people: the verdict first, colour only on a terminal; a name stays in its cell, escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from cli.printing.output import terminal
from config.text.printable import visible
from redaction import shown

COLOURS = {
    "installed": "green", "upgraded": "green", "unchanged": "dim", "failed": "bold red", "skipped": "yellow",
    "not-attempted": "dim", "install": "green", "upgrade": "cyan", "drifted": "yellow", "recover": "magenta",
    "restart": "cyan",
    "ok": "green", "blocks": "bold red", "warning": "yellow", "ready": "green", "not ready": "bold red",
    "keep": "green", "may go": "yellow", "removed": "dim", "held": "yellow",
    "waiting": "dim", "complete": "green", "partial": "yellow", "exists": "dim", "backing up": "cyan",
    "pass": "green", "fail": "bold red", "error": "magenta", "proving": "cyan",
    "restored": "green", "different": "bold red", "replaced": "yellow", "by-hand": "bold yellow", "restoring": "cyan",
    "fresh": "green", "stale": "yellow", "failing": "bold red", "never": "yellow",
    "installing": "cyan", "gate": "blue", "checking": "cyan",
}  # fmt: skip
# Only these hold our own words: a collection called `pass` is not green.
COLOURED = frozenset({"state", "action", "outcome", "verdict", "last verdict", "what happens"})


WIDE = 160  # characters, if the output is not a terminal


class PlainConsole(Console):
    """Takes no markup from text, shows its control characters as text, and no secret.

    A string is one line, in a table cell too: several lines are passed as a sequence (`table`).
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """As `Console.render_str`."""
        plain = {**options, "markup": False, "emoji": False, "highlight": False}
        return super().render_str(shown(text), **plain)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """As `Console.render`; objects other than strings are escaped too."""
        for segment in super().render(renderable, options):
            yield (
                segment
                if segment.control
                else segment._replace(text=visible(segment.text, lines=True))
            )


def console(*, stderr: bool = False) -> Console:
    """Create a console; wide enough for hints if the output is not a terminal."""
    stream = terminal(stderr=stderr)
    plain = PlainConsole(file=stream)
    return plain if plain.is_terminal else PlainConsole(file=stream, width=WIDE)


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    """Create a table; verdicts get their colour.

    Args:
        title: above it.
        columns: column heads.
        rows: their cells; a cell that is a sequence has a line for each of its members.
    """
    heads = tuple(columns)
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in heads:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(_cell(value, column) for column, value in zip(heads, row, strict=False)))
    return made


def nodes_table(rows: Iterable[Mapping[str, Any]], title: str = "") -> Table:
    """One line per node of a deploy: its phase, since when, and why."""
    return table(
        title,
        ("node", "state", "seconds", "note"),
        (
            (
                r["name"],
                r["outcome"] or r["phase"],
                f"{r['seconds']:.1f}" if r["seconds"] else "",
                r["note"],
            )
            for r in rows
        ),
    )


def _cell(value: Any, column: str) -> Text:
    lines = value if isinstance(value, (list, tuple)) else (value,)
    colour = COLOURS.get(str(value), "") if column in COLOURED else ""
    return Text("\n".join(shown(str(line)) for line in lines), style=colour)
