"""The point that a recovery stops at: a time, or an LSN."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from archive.wal.coverage import Line
from archive.wal.names import lsn_number, lsn_text
from errors import ArgumentError, Fault

# RFC 3339 with seconds; without its offset a time could be meant in two ways.
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_HINT = "a time with its UTC offset, 2026-11-29T17:59:30Z, or an LSN, 0/3000028"


@dataclass(frozen=True)
class RecoveryTarget:
    """A time or an LSN.

    Attributes:
        time: the last commits are those of this time; None if an LSN is the target.
        lsn: all WAL before it is replayed; 0 if a time is the target.
    """

    time: datetime | None = None
    lsn: int = 0

    @classmethod
    def parse(cls, text: str) -> RecoveryTarget:
        """Read `2026-11-29T17:59:30Z` or `0/3000028`.

        Raises:
            ArgumentError: it is neither.
        """
        try:
            if _TIME.fullmatch(text):
                return cls(time=datetime.fromisoformat(text).astimezone(UTC))
            lsn = lsn_number(text)
        except (ValueError, OverflowError):
            lsn = 0
        if not lsn:
            raise ArgumentError([Fault("--at", f"{text[:100]!r} is not a point", _HINT)])
        return cls(lsn=lsn)

    @property
    def text(self) -> str:
        """As `parse` reads it."""
        if self.time is None:
            return lsn_text(self.lsn)
        return (
            self.time.isoformat(timespec="microseconds")
            .replace(".000000", "")
            .replace("+00:00", "Z")
        )

    @property
    def words(self) -> str:
        """For people."""
        return self.text if self.time else f"LSN {self.text}"

    def part_of(self, line: Line) -> Line:
        """The part of a line that recovery to this point needs.

        Raises:
            NotCovered: the line does not reach it.
        """
        return line.up_to_time(self.time) if self.time else line.beyond_lsn(self.lsn)
