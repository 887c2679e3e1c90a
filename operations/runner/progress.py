"""The progress of each node, for terminal, artifact and log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

WAITING, CHECKING, INSTALLING, GATE, DONE = "waiting", "checking", "installing", "gate", "done"


@dataclass(frozen=True)
class NodeProgress:
    """One line of the table.

    Attributes:
        name: of the node.
        phase: waiting, checking, installing, gate or done.
        outcome: how it ended, "" until then.
        seconds: since its start, or in all once it is done.
        note: what it is doing, or why it ended so.
        began: seconds from the table's beginning to the node's; 0 until then.
    """

    name: str
    phase: str = WAITING
    outcome: str = ""
    seconds: float = 0.0
    note: str = ""
    began: float = 0.0


class Progress:
    """The table; every change is passed on.

    Args:
        nodes: names, in the order of the lines.
        publish: gets all lines after each change; called under a lock, one call at a time.
        clock: seconds.
        line: class of a line; may have more columns.
    """

    def __init__(
        self,
        nodes: Iterable[str],
        publish: Callable[[list[NodeProgress]], None] = lambda lines: None,
        clock: Callable[[], float] = time.monotonic,
        line: Callable[[str], NodeProgress] = NodeProgress,
    ) -> None:
        self._lines = {name: line(name) for name in nodes}
        self._began: dict[str, float] = {}
        self._publish = publish
        self._clock = clock
        self._start = clock()
        self._lock = threading.Lock()

    def update(
        self,
        name: str,
        phase: str,
        note: str = "",
        *,
        outcome: str = "",
        seconds: float | None = None,
        **more: Any,
    ) -> None:
        """Set what a node is doing, or how it ended; `more` are the line's further columns."""
        with self._lock:
            if phase != WAITING:
                self._began.setdefault(name, self._clock())
            began = self._began.get(name)
            elapsed = self._clock() - began if began is not None else 0.0
            self._lines[name] = replace(
                self._lines[name],
                phase=phase,
                note=note,
                outcome=outcome,
                seconds=round(elapsed if seconds is None else seconds, 1),
                began=round(began - self._start, 1) if began is not None else 0.0,
                **more,
            )
            self._publish(list(self._lines.values()))

    def ended(self, name: str, outcome: str, seconds: float, note: str = "", **more: Any) -> None:
        """Set how a node ended; one that took no time never started, and stays waiting in the table."""
        phase = DONE if seconds else WAITING
        self.update(name, phase, note, outcome=outcome, seconds=seconds, **more)

    def show(self) -> None:
        """Publish the lines as they are."""
        with self._lock:
            self._publish(list(self._lines.values()))

    def seconds(self, name: str) -> float:
        """Seconds since the node began, retries included."""
        return self._clock() - self._began.get(name, self._clock())


def as_rows(lines: Iterable[NodeProgress]) -> list[dict[str, Any]]:
    """The lines as plain rows, for JSON and tables."""
    return [asdict(line) for line in lines]
