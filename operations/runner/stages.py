"""How long each part of a piece of work took."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from operations.runner.context import RunContext


@dataclass
class Stages:
    """How long each part of something took.

    Attributes:
        context: gets told what is under way; has the clock.
        seconds: of each part that has ended, by its name.
    """

    context: RunContext
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, note: str = "") -> Iterator[None]:
        """Measure a part, and report that it is running."""
        self.context.tell(note or name)
        began = self.context.clock()
        try:
            yield
        finally:
            self.seconds[name] = round(self.context.clock() - began, 2)
