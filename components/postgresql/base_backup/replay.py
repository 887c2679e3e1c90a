"""Holds a standby still for a backup, so that its files, its dumps and its digests are of one moment.

While replay is paused the standby still receives and keeps the primary's WAL: nothing is less safe, but the standby
falls behind and a promotion of it would take longer. It must therefore never stay paused because we died. PostgreSQL
ties the pause to no session, so a second session does: a block that runs in the server looks once a second whether
the session that holds the pause is still there, and resumes when it is not. A block that is running does not notice
that its own client is gone (`client_connection_check_interval` is 0 by default), an idle session does at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from cluster.polling import polling
from components.access import Access, Endpoint
from components.postgresql.client import connect_long
from errors import TemporaryError

log = logging.getLogger(__name__)

PAUSE_SECONDS = 15.0
# A lock of the primary is held here while replay is paused: that table cannot be read then.
LOCK_SECONDS, LOCK_PAUSE_SECONDS = 30.0, 0.5
LOCKED = """
    SELECT datname, min(relation::text) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
    WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND granted
      AND l.pid = (SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup')
    GROUP BY 1 ORDER BY 1
"""
# pg_stat_activity is read once a transaction unless told otherwise, and the block is one transaction
GUARD = """
DO $$
BEGIN
    WHILE EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid} AND backend_start = '{start}') LOOP
        PERFORM pg_sleep(1);
        PERFORM pg_stat_clear_snapshot();
    END LOOP;
    IF pg_is_in_recovery() THEN
        PERFORM pg_wal_replay_resume();
    END IF;
END $$
"""


@dataclass(frozen=True)
class Pause:
    """A standby that stands still.

    Attributes:
        point: LSN up to which it has replayed.
        locked: databases with a table that cannot be read → why.
    """

    point: str
    locked: dict[str, str]


@contextmanager
def paused_replay(
    access: Access, node: Endpoint, lock_seconds: float = LOCK_SECONDS
) -> Iterator[Pause]:
    """Pause a standby's replay at a moment at which all tables can be read; if there is none, it says which cannot.

    Args:
        access: addresses and credentials.
        node: the standby.
        lock_seconds: how long to wait for a moment without locks.

    Raises:
        TemporaryError: the standby was promoted, does not pause in time, or was resumed by another session. In the last
            case the files are of a later moment than the dumps and digests.
    """
    with connect_long(access, node) as holder, connect_long(access, node) as guard:
        row = holder.execute(
            "SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        ).fetchone()
        assert row is not None
        block = GUARD.format(pid=int(row[0]), start=str(row[1]))
        guarding = threading.Thread(target=_run, args=(guard, block), daemon=True)
        guarding.start()
        try:
            pause = _pause_unlocked(holder, node, lock_seconds)
            yield pause
            _still(holder, node, pause.point)
        finally:
            _resume(holder)
            holder.close()
            guarding.join(10)  # its resume must not come in the midst of the next backup


def _pause_unlocked(holder: psycopg.Connection, node: Endpoint, seconds: float) -> Pause:
    deadline = time.monotonic() + seconds
    while True:
        point = _pause(holder, node)
        locked = {
            name: f"relation {relation} is locked on the primary (AccessExclusiveLock)"
            for name, relation in holder.execute(LOCKED).fetchall()
        }
        if not locked or time.monotonic() > deadline:
            return Pause(point, locked)
        log.info("the pause of %s waits: %s", node.member, "; ".join(locked.values()))
        _resume(holder)
        time.sleep(LOCK_PAUSE_SECONDS)


def _pause(holder: psycopg.Connection, node: Endpoint) -> str:
    try:
        holder.execute("SELECT pg_wal_replay_pause()")
        for _ in polling(PAUSE_SECONDS, pause=0.02, sleep=time.sleep):
            row = holder.execute(
                "SELECT pg_get_wal_replay_pause_state(), pg_last_wal_replay_lsn()::text"
            ).fetchone()
            if row is not None and row[0] == "paused":
                return str(row[1])
    except psycopg.Error as exc:
        raise TemporaryError(f"{node.member} did not pause its replay: {exc}") from exc
    raise TemporaryError(f"{node.member} did not pause its replay within {PAUSE_SECONDS:.0f} s")


def _still(holder: psycopg.Connection, node: Endpoint, point: str) -> None:
    """Check that replay was not resumed: Patroni does so in each of its loops, an operator may."""
    try:
        row = holder.execute(
            "SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text"
        ).fetchone()
    except psycopg.Error as exc:
        raise TemporaryError(f"{node.member} was lost while its replay was paused: {exc}") from exc
    if row != (True, point):
        words = f"replay is at {row[1]}" if row is not None and row[0] else "it was promoted"
        raise TemporaryError(
            f"{node.member} did not stay paused at {point}: {words}. Another program resumes its replay (Patroni "
            "does): exclude one standby from that, otherwise no consistent backup is possible"
        )


def _resume(holder: psycopg.Connection) -> None:
    try:
        holder.execute("SELECT CASE WHEN pg_is_in_recovery() THEN pg_wal_replay_resume()::text END")
    except psycopg.Error:  # promoted, stopped, or lost: the guard does what is left to do
        return


def _run(guard: psycopg.Connection, block: str) -> None:
    try:
        guard.execute(block.encode())
    except psycopg.Error:  # the server stopped; a restarted one is not paused
        return
