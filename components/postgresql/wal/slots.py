"""A physical replication slot on every node, so that each of them keeps the WAL that is not stored yet.

A slot that pg_receivewal itself used would be advanced to what is in the spool, which a lost machine takes with it. So
nobody streams from these slots: they are advanced to what is stored. They are on standbys too, because a promotion does
not bring the primary's slots along. `max_slot_wal_keep_size` bounds what they hold back; a slot beyond it is lost.
https://www.postgresql.org/docs/18/warm-standby.html#STREAMING-REPLICATION-SLOTS
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import psycopg

from archive.wal.names import lsn_number, lsn_text

log = logging.getLogger(__name__)

SLOT = "isa_cloud_wal"
LOST = "lost"
STATUS = """
    SELECT wal_status, restart_lsn::text FROM pg_replication_slots
    WHERE slot_name = %s AND slot_type = 'physical'
"""
RESERVE = "SELECT pg_create_physical_replication_slot(%s, true)"
DROP = "SELECT pg_drop_replication_slot(%s)"
# A slot cannot be advanced behind what its node has flushed or replayed (`pg_replication_slot_advance` in
# src/backend/replication/slotfuncs.c), nor moved back.
ADVANCE = """
    SELECT pg_replication_slot_advance(%s, least(%s::pg_lsn, at))
    FROM (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END AS at),
         pg_replication_slots
    WHERE slot_name = %s AND least(%s::pg_lsn, at) > restart_lsn
"""


# -1 stands for no limit (src/backend/utils/misc/guc_tables.c, max_slot_wal_keep_size).
USE = """
    SELECT pg_wal_lsn_diff(
               CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, restart_lsn),
           nullif(setting, '-1')::bigint * 1024 * 1024
    FROM pg_replication_slots, pg_settings
    WHERE slot_name = %s AND name = 'max_slot_wal_keep_size'
"""


@dataclass(frozen=True)
class SlotUse:
    """How much WAL a node keeps for the slot.

    Attributes:
        held: bytes that it keeps.
        limit: bytes at which it drops them; None without a limit.
    """

    held: int
    limit: int | None


@dataclass(frozen=True)
class SlotStatus:
    """The slot of a node.

    Attributes:
        reserved: LSN from which the node keeps WAL for it.
        lost: whether the slot had lost its WAL, or did not exist, and was created now.
    """

    reserved: int
    lost: bool


def ensure_slot(connection: psycopg.Connection[Any]) -> SlotStatus:
    """Create the slot unless there is one that still has its WAL.

    Args:
        connection: of a superuser to the node; with autocommit.
    """
    row = connection.execute(STATUS, [SLOT]).fetchone()
    new = row is None or row[0] == LOST or row[1] is None
    if row is not None and new:
        log.warning("replication slot %s has lost its WAL: it is created again", SLOT)
        connection.execute(DROP, [SLOT])
    if new:
        connection.execute(RESERVE, [SLOT])
        row = connection.execute(STATUS, [SLOT]).fetchone()
    assert row is not None
    return SlotStatus(lsn_number(row[1]), new)


def advance_slot(connection: psycopg.Connection[Any], lsn: int) -> None:
    """Let a node drop the WAL below an LSN, which is stored.

    Args:
        connection: of a superuser to the node; with autocommit.
        lsn: start of the segment that is not stored as a whole yet.
    """
    text = lsn_text(lsn)
    connection.execute(ADVANCE, [SLOT, text, SLOT, text])


def slot_use(connection: psycopg.Connection[Any]) -> SlotUse | None:
    """Return how much WAL a node keeps for the slot; None if it has no slot, or the slot is lost.

    Args:
        connection: to the node.
    """
    row = connection.execute(USE, [SLOT]).fetchone()
    if row is None or row[0] is None:
        return None
    return SlotUse(max(0, int(row[0])), row[1])
