"""Tables for people: verdict first, colour only on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from redaction import redact

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
PHASE_ORDER = ("node", "state", "seconds", "note")


class _Discreet(Console):
    """Shows no secret, in no cell of a table either."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(redact(text), **options)


def console(*, stderr: bool = False) -> Console:
    """A console; wide enough for hints when nobody looks at it through a terminal."""
    plain = _Discreet(stderr=stderr)
    return plain if plain.is_terminal else _Discreet(stderr=stderr, width=160)


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    """Make a table; words that are verdicts get their colour."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(_cell(value) for value in row))
    return made


def nodes_table(rows: Iterable[Mapping[str, Any]], title: str = "") -> Table:
    """One line per node of a deploy: where it stands, since when, and why."""
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


def _cell(value: Any) -> str:
    text = escape(str(value))
    colour = COLOURS.get(str(value))
    return f"[{colour}]{text}[/{colour}]" if colour else text
