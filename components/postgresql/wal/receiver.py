"""One pg_receivewal, which writes a primary's WAL into the spool."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cluster.command import Background
from components.access import Access, Endpoint
from components.postgresql.client import SECRET, program, where
from components.postgresql.wal.spool import WalSpool

PROGRAM = "pg_receivewal"
# What a walsender says of WAL that its node has not any more (`XLogReaderAllocate`'s callers in
# src/backend/replication/walsender.c).
REMOVED = "has already been removed"
STATUS_SECONDS = 1  # between two confirmations; the primary's view shows them as write_lsn


class WalReceiver:
    """A running pg_receivewal.

    Args:
        process: of it.
        spool: that it writes.
    """

    def __init__(self, process: Background, spool: WalSpool) -> None:
        self._process, self._spool = process, spool

    @property
    def ended(self) -> str | None:
        """What it said when it ended; None while it runs."""
        return self._process.ended

    def written(self) -> tuple[int, int] | None:
        """How far it has written: timeline and LSN; None if it has no file open."""
        return self._spool.written(self._process.pid)


@contextmanager
def receiving(access: Access, primary: Endpoint, spool: WalSpool) -> Iterator[WalReceiver]:
    """Run pg_receivewal in a block.

    Args:
        access: the way in.
        primary: to follow.
        spool: that it writes; where it begins was chosen before (`WalSpool.begin_at`).

    Raises:
        PermanentError: pg_receivewal is not installed.
    """
    command = program(access, PROGRAM, access.secret(SECRET, "postgres-password"))
    with command.background(
        f"--dbname={where(primary)}", f"--directory={spool.directory}", "--no-loop", "--no-password",
        f"--status-interval={STATUS_SECONDS}",
    ) as process:  # fmt: skip
        yield WalReceiver(process, spool)
