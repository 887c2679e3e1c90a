"""Stores what pg_receivewal has received: the growing segment in pieces, and a complete one again, in large objects.

The position moves only behind a stored object. What the store did not take is sent again, with what came after it, by
the next call; an object that was stored although the answer was lost does no harm (`archive.wal.coverage`).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from archive.wal.bucket import WalWriter
from archive.wal.names import TimelineHistory, WalObject, lsn_number, lsn_text
from components.postgresql.wal.spool import SegmentFile, WalSpool
from errors import PermanentError

log = logging.getLogger(__name__)

# An object is in memory three times: plain, compressed and encrypted. A segment of 16 MiB is four objects.
OBJECT_BYTES = 4 << 20


@dataclass(frozen=True)
class StoredPosition:
    """How far the WAL of a database cluster is stored.

    Attributes:
        timeline: of the newest object.
        lsn: behind its last byte.
        state: of the WAL there, in hexadecimal.
        before: state of the WAL at the start of the segment; "" if a chain begins there.
        covers: each commit until then is stored, by the primary's clock; None if that is not known.
    """

    timeline: int
    lsn: int
    state: str
    before: str
    covers: datetime | None = None


class Shipper:
    """Stores the WAL of one spool.

    Args:
        writer: to the bucket.
        spool: of pg_receivewal.
        environment: name.
        system: system identifier of the database cluster.
        stored: where the stored WAL ends; None if none is.
        begin: timeline and LSN of the segment to begin with if none is stored.
        now: wall clock, for the time of signing.

    Attributes:
        timeline: that is stored now.
        lsn: behind the last stored byte.
        covers: each commit until then is stored, by the primary's clock; None if that is not known.
        diverged: why the WAL of the server does not continue the stored one; "" if it does.
    """

    def __init__(
        self,
        writer: WalWriter,
        spool: WalSpool,
        environment: str,
        system: str,
        stored: StoredPosition | None,
        begin: tuple[int, int] = (0, 0),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._writer, self._spool = writer, spool
        self._environment, self._system = environment, system
        self._now = now
        self.diverged = ""
        at = stored or StoredPosition(begin[0], begin[1] - begin[1] % spool.segment, "", "")
        self.timeline, self.covers = at.timeline, at.covers
        self._tip: StoredPosition | None = None
        if at.lsn % spool.segment:  # compared with what the server sends again
            self._tip = at
            self.lsn, self._before = at.lsn - at.lsn % spool.segment, at.before
        else:
            self.lsn, self._before = at.lsn, at.state
        self._digest = hashlib.sha256()

    @property
    def segment_start(self) -> int:
        """LSN from which the WAL is still needed from the server."""
        return self.lsn - self.lsn % self._spool.segment

    def ship(
        self, written: tuple[int, int] | None, covered: Callable[[int], datetime | None]
    ) -> None:
        """Store what is new in the spool.

        Args:
            written: how far the growing segment is written: timeline and LSN; None if there is none.
            covered: LSN → the time until which each commit is at or below it; None if that is not known.

        Raises:
            TemporaryError, PermanentError: from the store; what was stored until then counts.
        """
        while True:
            files = {
                (one.start, one.timeline): one
                for one in self._spool.files()
                if one.start >= self.segment_start
            }
            current = files.get((self.segment_start, self.timeline))
            if current is not None and current.complete:
                self._whole(current, covered)
            elif written and written[0] == self.timeline and current is not None:
                end = min(written[1], self.segment_start + self._spool.segment)
                self._pieces(current, end, covered)
                return
            elif not self._follow(files):
                return

    # ------------------------------------------------------------------ inside
    def _whole(self, file: SegmentFile, covered: Callable[[int], datetime | None]) -> None:
        """Store a complete segment; its pieces are not needed any more."""
        if self._tip is not None:
            self._resume(file, file.start + self._spool.segment)
        before, digest = self._before, hashlib.sha256()
        with file.path.open("rb") as source:
            for start in range(file.start, file.start + self._spool.segment, OBJECT_BYTES):
                end = min(start + OBJECT_BYTES, file.start + self._spool.segment)
                plain = source.read(end - start)
                digest.update(plain)
                self._put(start, end, before, digest.hexdigest(), plain, covered)
                before = digest.hexdigest()
        self.lsn, self._before, self._digest = end, before, hashlib.sha256()
        file.path.unlink()

    def _pieces(
        self, file: SegmentFile, end: int, covered: Callable[[int], datetime | None]
    ) -> None:
        """Store what is new in the growing segment."""
        if self._tip is not None and not self._resume(file, end):
            return
        while self.lsn < end:
            size = min(end - self.lsn, OBJECT_BYTES)
            plain = self._read(file, self.lsn, size)
            before = self._digest.hexdigest() if self.lsn > file.start else self._before
            digest = self._digest.copy()
            digest.update(plain)
            self._put(self.lsn, self.lsn + size, before, digest.hexdigest(), plain, covered)
            self.lsn, self._digest = self.lsn + size, digest

    def _resume(self, file: SegmentFile, end: int) -> bool:
        """Go on behind the stored part of a segment, if the server's bytes are the stored ones.

        Returns:
            Whether enough was received to compare.
        """
        assert self._tip is not None
        tip = self._tip
        if end < tip.lsn:
            return False
        digest = hashlib.sha256()
        for start in range(file.start, tip.lsn, OBJECT_BYTES):
            digest.update(self._read(file, start, min(OBJECT_BYTES, tip.lsn - start)))
        self._tip = None
        if digest.hexdigest() == tip.state:
            self.lsn, self._digest = tip.lsn, digest
        else:
            self.diverged = (
                f"the server's WAL up to {lsn_text(tip.lsn)} of timeline {tip.timeline} is not the stored WAL: it is "
                "of another history. Take a base backup now"
            )
            self.covers = None
            log.error("%s", self.diverged)
        return True

    def _follow(self, files: dict[tuple[int, int], SegmentFile]) -> bool:
        """Change to the next timeline, if the segment is received on it, and store its history file."""
        newer = sorted(
            timeline
            for start, timeline in files
            if start == self.segment_start and timeline > self.timeline
        )
        histories = self._spool.histories()
        if not newer or newer[0] not in histories:
            return False
        timeline = newer[0]
        content = histories[timeline]
        parent, switch = last_switch(content)
        history = TimelineHistory(
            self._environment, self._system, timeline, parent, switch,
            hashlib.sha256(content).hexdigest(), self._now(),
        )  # fmt: skip
        self._writer.put(history, content)
        old = files.get((self.segment_start, self.timeline))
        if old is not None:
            old.path.unlink()
        log.info("timeline %d follows timeline %d at %s", timeline, parent, lsn_text(switch))
        # commits of the old timeline behind the switch are not in the new one
        self.timeline, self.lsn, self._tip, self.covers = timeline, self.segment_start, None, None
        self._digest = hashlib.sha256()
        return True

    def _put(
        self,
        start: int,
        end: int,
        before: str,
        through: str,
        plain: bytes,
        covered: Callable[[int], datetime | None],
    ) -> None:
        times = [one for one in (self.covers, covered(end)) if one is not None]
        covers = max(times, default=None)
        one = WalObject(
            self._environment, self._system, self.timeline, start, end, before, through, covers, self._now()
        )  # fmt: skip
        self._writer.put(one, plain)
        self.covers = covers

    @staticmethod
    def _read(file: SegmentFile, start: int, size: int) -> bytes:
        with file.path.open("rb") as source:
            source.seek(start - file.start)
            plain = source.read(size)
        if len(plain) < size:
            raise PermanentError(f"{file.path} ends before LSN {lsn_text(start + size)}")
        return plain


def read_switches(history: str) -> list[tuple[int, int]]:
    r"""Read a timeline history file: each earlier timeline and the LSN at which it was left; the direct parent is last.

    Each line is a parent timeline, the LSN and a reason, separated by tabs (`readTimeLineHistory` in
    src/backend/access/transam/timeline.c).

    Raises:
        PermanentError: it is not such a file.
    """
    lines = [line.split() for line in history.splitlines() if not line.lstrip().startswith("#")]
    try:
        return [(int(words[0]), lsn_number(words[1])) for words in lines if words]
    except (IndexError, ValueError) as exc:
        raise PermanentError("a timeline history file of PostgreSQL cannot be read") from exc


def last_switch(history: bytes) -> tuple[int, int]:
    """Read from a timeline history file from which timeline it left, and at which LSN.

    Raises:
        PermanentError: it is not such a file.
    """
    switches = read_switches(history.decode(errors="replace"))
    if not switches:
        raise PermanentError("a timeline history file of PostgreSQL cannot be read")
    return switches[-1]


def stored_position(objects: tuple[WalObject, ...], segment: int) -> StoredPosition:
    """Return where a line of stored WAL ends (`archive.wal.coverage.Line.objects`)."""
    last = objects[-1]
    boundary = last.end - last.end % segment
    before = next((one.before for one in objects if one.start == boundary), "")
    covers = max((one.covers for one in objects if one.covers), default=None)
    return StoredPosition(last.timeline, last.end, last.through, before, covers)
