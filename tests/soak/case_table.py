"""Cases that are tried one after the other, and the page in docs/results that says how each ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from cluster.polling import polling
from config.loading import ROOT
from errors import IsaError


class Missed(Exception):
    """A case did not show what it should."""


def expect(condition: object, words: str) -> None:
    """Raise `Missed` unless something is so."""
    if not condition:
        raise Missed(words)


@dataclass
class CaseTable:
    """The cases so far.

    Attributes:
        rows: what was tried, verdict, seconds.
        wait_seconds: limit of each wait.
    """

    wait_seconds: ClassVar[float] = 180.0

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

    def chain(self, cases: Iterable[tuple[str, Callable[[], object]]]) -> None:
        """Try cases that each go on where the one before ended, up to the first that fails."""
        for words, action in cases:
            self.case(words, action)
            if self.failed:
                return

    def until(
        self, condition: Callable[[], bool], words: str, state: Callable[[], Any] = str
    ) -> None:
        """Wait until something is so.

        Args:
            condition: that is waited for.
            words: what it says, for the message.
            state: tells how things are instead.

        Raises:
            Missed: it was not so in time.
        """
        for _ in polling(self.wait_seconds, pause=0.2, sleep=time.sleep):
            if condition():
                return
        raise Missed(f"{words}: not within {self.wait_seconds:.0f} s: {state()}")

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
