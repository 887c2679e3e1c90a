"""What travels through every use case beside its environment: who runs it, progress, clock and cancellation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from cluster.command import CANCELLATION, Cancellation
from operations.runner.progress import NodeProgress


@dataclass(frozen=True)
class RunContext:
    """One run of a use case.

    Attributes:
        who: runs it, for others to read on the Leases.
        tell: gets notes for people: what is under way.
        publish: gets all lines of the table after each change; one call at a time.
        clock: seconds; only differences of it count.
        cancellation: ends waiting when the run is cancelled.
    """

    who: str
    tell: Callable[[str], None] = lambda note: None
    publish: Callable[[list[NodeProgress]], None] = lambda lines: None
    clock: Callable[[], float] = time.monotonic
    cancellation: Cancellation = CANCELLATION

    def telling(self, tell: Callable[[str], None]) -> RunContext:
        """The same run, whose notes go elsewhere: to one line of the table."""
        return replace(self, tell=tell)
