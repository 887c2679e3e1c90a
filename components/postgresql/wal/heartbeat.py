"""A commit on the primary each second, by which the recovery point is measured end to end.

It writes no row: a transactional message of WAL (`pg_logical_emit_message`) makes a commit record of its own, which is
what recovery to a time stops at. All times are the primary's, so the clock of this machine does not matter.
https://www.postgresql.org/docs/18/functions-admin.html#FUNCTIONS-REPLICATION
"""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import Any

import psycopg

from archive.wal.names import lsn_number

PREFIX = "isa-cloud"
BEAT = "SELECT clock_timestamp(), pg_logical_emit_message(true, %s, '')"
FLUSHED = "SELECT pg_current_wal_flush_lsn()::text"
MOST = 3600  # beats that wait to be stored: an hour


class Heartbeats:
    """The beats that are not stored yet.

    Attributes:
        newest: time of the newest beat, by the primary's clock; None before the first.
    """

    def __init__(self) -> None:
        self._beats: deque[tuple[int, datetime]] = deque(maxlen=MOST)
        self.newest: datetime | None = None

    def beat(self, connection: psycopg.Connection[Any]) -> int:
        """Commit once; returns the LSN behind the commit.

        Args:
            connection: to the primary, with autocommit; its commits must be flushed (`synchronous_commit`).
        """
        row = connection.execute(BEAT, [PREFIX]).fetchone()
        flushed = connection.execute(FLUSHED).fetchone()
        assert row is not None and flushed is not None
        lsn = lsn_number(flushed[0])
        self.add(lsn, row[0])
        return lsn

    def add(self, lsn: int, at: datetime) -> None:
        """Note a beat.

        Args:
            lsn: behind its commit.
            at: before its commit, by the primary's clock.
        """
        self._beats.append((lsn, at))
        self.newest = at

    def covered(self, lsn: int) -> datetime | None:
        """Return until when each commit is at or below an LSN; None if that is not known."""
        found = [at for beat, at in self._beats if beat <= lsn]
        return max(found, default=None)

    def forget(self) -> None:
        """Drop all beats: they were of a timeline that is left."""
        self._beats.clear()
