"""Progress of a backup: artefact, bytes and rate, reported a few times a second at most."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from cluster.command import CANCELLATION

TELL_SECONDS = 0.5


class Transfer:
    """Counts bytes of one component.

    Args:
        tell: gets a note for people: `base.tar: 1.2 GiB, 148 MiB/s`.
        clock: seconds.
    """

    def __init__(
        self, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._lock = threading.Lock()
        self._artefact = ""
        self._began = self._told = clock()
        self._bytes = 0

    def add(self, artefact: str, size: int) -> None:
        """Count bytes of an artefact, and report if it is time."""
        with self._lock:
            now = self._clock()
            if artefact != self._artefact:
                self._artefact, self._began, self._bytes = artefact, now, 0
            self._bytes += size
            if now - self._told < TELL_SECONDS:
                return
            self._told = now
            rate = self._bytes / max(now - self._began, 0.001)
            note = f"{artefact}: {human(self._bytes)}, {human(rate)}/s"
        self._tell(note)


def watched(transfer: Transfer, component: str) -> Callable[[str, int], None]:
    """Count bytes as they pass, and stop if the run is cancelled.

    Args:
        transfer: counts them.
        component: that they belong to.
    """

    def watch(artefact: str, size: int) -> None:
        CANCELLATION.check(f"in {component}'s {artefact}")
        transfer.add(artefact, size)

    return watch


def human(size: float) -> str:
    """A number of bytes, for people."""
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
