"""What the stream of WAL does now: a line at each change of state, the note on its Lease, metrics, and liveness."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from archive.wal.names import lsn_text
from components.postgresql.wal.stream import StreamStatus
from operations.documents.wal import (
    CONNECTING,
    ENDED,
    INTERRUPTED,
    STREAMING,
    WAITING,
    WalNote,
    WalSlot,
)

# A connection to a lost node takes up to 10 s, an answer of a hanging one 20 s, a request to a lost store 30 s.
ALIVE_SECONDS = 180.0
REASON = 500  # characters of an error that a note holds


class StreamMonitor:
    """Follows one stream. Its methods are called by the stream's thread, the others' threads read.

    Args:
        tell: gets a line at each change.
        spool_bytes: limit of the spool.
        clock: monotonic seconds.
        now: wall clock, for people.

    Attributes:
        state: what the stream does.
        status: of the stream.
        rounds: that have ended.
    """

    def __init__(
        self,
        tell: Callable[[str], None],
        spool_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tell, self._spool_bytes = tell, spool_bytes
        self._clock, self._now = clock, now
        self._lock = threading.Lock()
        self._seen = self._beat = clock()
        self._reason = ""
        self._told = ("", "", "", "")  # timeline, store, diverged, hole
        self._newest: datetime | None = None
        self.state = WAITING
        self.status = StreamStatus()
        self.rounds = 0

    # ------------------------------------------------------------------ the stream reports
    def continues(self, note: WalNote | None) -> None:
        """Take over what the last stream knew: its gaps, and until when commits are stored."""
        if note is not None:
            self.status = StreamStatus(covers=note.covers, gaps=note.gaps, last_gap=note.last_gap)

    def waits(self, reason: str) -> None:
        """Another stream holds the Lease, or the cluster does not answer."""
        self._become(WAITING, reason)

    def connects(self) -> None:
        """The Lease is held; the primary is looked for."""
        if self.state != INTERRUPTED:
            self._become(CONNECTING, "")

    def interrupted(self, reason: str) -> None:
        """Nothing is received until the next attempt."""
        self._told = ("", *self._told[1:])
        self._become(INTERRUPTED, reason)

    def ended(self) -> None:
        """The stream was told to end."""
        self._become(ENDED, "")

    def progress(self) -> None:
        """Something was stored, or tried: the process lives."""
        self._seen = self._clock()

    def observe(self, status: StreamStatus) -> None:
        """A round has ended."""
        self.progress()
        self.status = status
        self.rounds += 1
        if status.newest != self._newest:
            self._newest, self._beat = status.newest, self._clock()
        with self._lock:
            self.state, self._reason = STREAMING, ""
        before, self._told = self._told, (
            str(status.timeline), status.store, status.diverged, status.begun_again,
        )  # fmt: skip
        timeline, store, diverged, hole = before
        if timeline != self._told[0]:
            self._tell(
                f"streaming timeline {status.timeline}; stored up to {lsn_text(status.stored_lsn)}"
            )
        if bool(store) != bool(status.store):
            self._tell(
                f"the store takes nothing, WAL waits in the spool: {status.store}"
                if status.store
                else f"the store takes WAL again; stored up to {lsn_text(status.stored_lsn)}"
            )
        if status.diverged and not diverged:
            self._tell(status.diverged)
        if status.begun_again and status.begun_again != hole:
            self._tell(f"a new chain of WAL begins, {status.begun_again}: isa backup postgresql")

    # ------------------------------------------------------------------ others read
    @property
    def alive(self) -> bool:
        """Whether the stream has done something lately, if only failed."""
        return self._clock() - self._seen < ALIVE_SECONDS

    @property
    def recovery_point_seconds(self) -> float | None:
        """Age of the newest stored commit; None if that is not known. It grows while nothing is received."""
        stored = self.status.recovery_point_seconds
        return None if stored is None else stored + self._clock() - self._beat

    def note(self) -> WalNote:
        """How the stream stands."""
        status, age = self.status, self.recovery_point_seconds
        with self._lock:
            state, reason = self.state, self._reason
        return WalNote(
            state=state,
            reason=reason,
            noted=self._now(),
            system=status.system,
            timeline=status.timeline,
            stored_lsn=lsn_text(status.stored_lsn),
            covers=status.covers,
            recovery_point_seconds=None if age is None else round(age, 3),
            spool_bytes=status.spool_bytes,
            spool_limit_bytes=self._spool_bytes,
            store=status.store[:REASON],
            diverged=status.diverged[:REASON],
            hole=status.begun_again[:REASON],
            gaps=status.gaps,
            last_gap=status.last_gap,
            slots=tuple(
                WalSlot(member=member, held_bytes=use.held, limit_bytes=use.limit)
                for member, use in sorted(status.slots.items())
            ),
        )

    # ------------------------------------------------------------------ inside
    def _become(self, state: str, reason: str) -> None:
        self.progress()
        reason = reason[:REASON]
        with self._lock:
            same = (state, reason) == (self.state, self._reason)
            self.state, self._reason = state, reason
        if not same:
            self._tell(f"{state}: {reason}" if reason else state)
