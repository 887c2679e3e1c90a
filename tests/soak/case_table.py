"""Cases that are tried one after the other, and the page in docs/results that says how each ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from config.loading import ROOT
from errors import IsaError


class Missed(Exception):
    """A case did not show what it should."""


@dataclass
class CaseTable:
    """The cases so far.

    Attributes:
        rows: what was tried, verdict, seconds.
    """

    rows: list[tuple[str, str, float]] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether a case failed."""
        return any(verdict != "passed" for _, verdict, _ in self.rows)

    def case(self, words: str, action: Callable[[], object]) -> None:
        """Try one, and keep how it ended."""
        began = time.monotonic()
        try:
            action()
            verdict = "passed"
        except (IsaError, Missed) as exc:
            verdict = f"**failed**: {exc}"
        self.rows.append((words, verdict, time.monotonic() - began))
        print(f"{words}: {verdict} ({self.rows[-1][2]:.1f} s)", flush=True)

    def write(self, page: str, *head: str) -> None:
        """Write the page.

        Args:
            page: its path from the project's root.
            head: its lines before the table.
        """
        lines = [
            *head,
            "",
            "| case | verdict | s |",
            "|---|---|---|",
            *(f"| {words} | {verdict} | {seconds:.1f} |" for words, verdict, seconds in self.rows),
        ]
        (ROOT / page).write_text("\n".join(lines) + "\n", encoding="utf-8")
