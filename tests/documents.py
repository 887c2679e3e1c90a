"""The shell blocks of the documents, and what says who runs each of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from config.loading import ROOT

BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]+) -->\n)?^```sh\n(?P<script>.*?)^```$", re.MULTILINE | re.DOTALL
)
EVERY = re.compile(r"^<!-- every sh block: (?P<mark>[^\n]+) -->$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One shell block.

    Attributes:
        page: path below the project.
        script: its commands.
        mark: the comment right before it, or the page's own: `run by TEST`, or `not run: REASON`; "" if there is none.
    """

    page: str
    script: str
    mark: str


def pages() -> list[Path]:
    """Every document of the project."""
    folders = (ROOT / "docs").rglob("*.md"), (ROOT / "deployments").rglob("*.md")
    return [*sorted(ROOT.glob("*.md")), *sorted(page for folder in folders for page in folder)]


def shell_blocks(page: str) -> list[Block]:
    """The blocks of one page, in order.

    Args:
        page: path below the project, `docs/operations/api.md`.
    """
    return list(_blocks(page, (ROOT / page).read_text(encoding="utf-8")))


def _blocks(page: str, text: str) -> Iterator[Block]:
    every = EVERY.search(text)
    for block in BLOCK.finditer(text):
        mark = block["mark"] or (every["mark"] if every else "")
        yield Block(page, block["script"], mark)
