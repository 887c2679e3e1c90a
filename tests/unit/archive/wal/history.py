"""A database cluster's WAL of a few bytes, stored in any pieces: what the bucket would list."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from archive.wal.names import TimelineHistory, WalObject

SEGMENT = 64
SYSTEM = "7412345678901234567"
NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


class Cluster:
    """WAL by timeline; a promotion copies the segment in which it happens.

    Attributes:
        wal: timeline → its bytes from LSN 0 on.
        histories: the timeline history files.
    """

    def __init__(self) -> None:
        self.wal: dict[int, bytes] = {1: b""}
        self.histories: list[TimelineHistory] = []

    def write(self, size: int, timeline: int = 1) -> int:
        """Append; returns the LSN behind it."""
        old = self.wal[timeline]
        new = b"".join(
            hashlib.sha256(b"%d %d" % (timeline, at)).digest()[:1]
            for at in range(len(old), len(old) + size)
        )
        self.wal[timeline] = old + new
        return len(self.wal[timeline])

    def promote(self, parent: int, switch: int, timeline: int) -> None:
        """Begin a timeline on another one."""
        self.wal[timeline] = self.wal[parent][:switch]
        self.histories.append(
            TimelineHistory("test", SYSTEM, timeline, parent, switch, "00" * 32, NOON)
        )

    def state(self, timeline: int, lsn: int) -> str:
        boundary = (lsn - 1) // SEGMENT * SEGMENT if lsn else 0
        return hashlib.sha256(self.wal[timeline][boundary:lsn]).hexdigest()

    def stored(self, timeline: int, *cuts: int, begins: bool = False) -> list[WalObject]:
        """The objects between LSNs; times are seconds since noon.

        Args:
            timeline: of the objects.
            cuts: LSNs.
            begins: whether a chain begins with the first.
        """
        return [
            WalObject(
                "test", SYSTEM, timeline, start, end,
                "" if begins and number == 0 else self.state(timeline, start),
                self.state(timeline, end), NOON + timedelta(seconds=end), NOON,
            )
            for number, (start, end) in enumerate(pairwise(cuts))
        ]  # fmt: skip
