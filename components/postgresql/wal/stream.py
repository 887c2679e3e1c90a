"""Follows the primary's WAL into the bucket, through restarts, failovers and outages of the store.

A round commits a heartbeat on the primary, stores what pg_receivewal has written by then, and shows in `status` how far
that is. The replication slots follow what is stored. `follow` ends when anything but the store is lost. The next call
begins with what is stored, as after a restart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from archive.object_store.store import Store
from archive.streams.spool import prepare_spool
from archive.wal.bucket import WalWriter, list_tail, newest_start
from archive.wal.names import lsn_text, wal_prefix
from cluster.command import CANCELLATION
from cluster.polling import polling
from components.access import Access
from components.postgresql.client import (
    PORT,
    STATEFULSET,
    SUPERUSER,
    answered_within,
    connect_long,
    primary,
)
from components.postgresql.connection.failures import explained
from components.postgresql.connection.session import WRITES
from components.postgresql.wal.heartbeat import Heartbeats
from components.postgresql.wal.receiver import REMOVED, WalReceiver, receiving
from components.postgresql.wal.shipper import (
    Shipper,
    StoredPosition,
    read_switches,
    stored_position,
)
from components.postgresql.wal.slots import SlotUse, advance_slot, ensure_slot, slot_use
from components.postgresql.wal.spool import WalSpool
from config.sections.backups import BackupSigner
from errors import TemporaryError

log = logging.getLogger(__name__)

SPOOL = "wal.postgresql.spool"  # the setting
ROUND_SECONDS = 0.5
RECEIVE_SECONDS, RECEIVE_PAUSE = 0.4, 0.02  # that a round waits for its own heartbeat
SLOT_ROUNDS = 20  # rounds between two looks at the slots
# The name of the file that is written now: the control file has the timeline of the last checkpoint only.
SERVER = """
    SELECT system_identifier::text, file, pg_size_bytes(current_setting('wal_segment_size')),
           pg_read_file(format('pg_wal/%s.history', left(file, 8)), true)
    FROM pg_control_system(), pg_walfile_name(pg_current_wal_lsn()) AS file
"""


@dataclass
class StreamStatus:
    """How the stream stands.

    Attributes:
        covers: each commit until then is stored, by the primary's clock; None if that is not known.
        newest: time of the newest heartbeat, by the primary's clock.
        stored_lsn: behind the last stored byte.
        timeline: of it.
        spool_bytes: that wait in the spool.
        store: why the store takes nothing; "" if it does.
        diverged: why the server's WAL does not continue the stored one; "" if it does.
        begun_again: why WAL is missing before the newest chain; "" if none is.
        system: system identifier of the database cluster; "" before the first connection.
        gaps: that streams have left so far.
        last_gap: when the WAL behind the newest gap began to be stored; None without a gap.
        slots: node → the WAL that it keeps; of those that were reached.
    """

    covers: datetime | None = None
    newest: datetime | None = None
    stored_lsn: int = 0
    timeline: int = 0
    spool_bytes: int = 0
    store: str = ""
    diverged: str = ""
    begun_again: str = ""
    system: str = ""
    gaps: int = 0
    last_gap: datetime | None = None
    slots: dict[str, SlotUse] = field(default_factory=dict)

    @property
    def recovery_point_seconds(self) -> float | None:
        """Age of the newest stored commit against the newest heartbeat; None if either is not known."""
        if self.covers is None or self.newest is None:
            return None
        return (self.newest - self.covers).total_seconds()


class WalStream:
    """Streams one environment's WAL. Only one may run at a time; the caller holds the Lease.

    Args:
        access: the way to the nodes.
        store: the bucket.
        writer: to it.
        environment: name.
        signers: trusted signers: only WAL that counts is continued.
        spool: directory; below it each database cluster has one of its own.
        spool_bytes: at which pg_receivewal is stopped until the store has taken half of it.
        stopped: whether to end.
        observe: called with the status after each round.

    Attributes:
        status: changes with every round.
    """

    def __init__(
        self,
        access: Access,
        store: Store,
        writer: WalWriter,
        environment: str,
        signers: Collection[BackupSigner],
        spool: Path,
        spool_bytes: int,
        stopped: Callable[[], bool],
        observe: Callable[[StreamStatus], None] = lambda status: None,
    ) -> None:
        self._access, self._store, self._writer = access, store, writer
        self._environment, self._signers = environment, signers
        self._directory, self._spool_bytes = spool, spool_bytes
        self._stopped, self._observe = stopped, observe
        self._removed = ""
        self.status = StreamStatus()

    def follow(self) -> None:
        """Follow the primary that there is now, until it is lost or the stream is stopped.

        Raises:
            TemporaryError: no primary, the primary or the store was lost, the spool is full: call again.
            PermanentError: pg_receivewal is missing; PostgreSQL or the store refuses.
        """
        node = primary(self._access)
        with ExitStack() as stack:
            stack.enter_context(explained(node.member))
            connection = stack.enter_context(connect_long(self._access, node, SUPERUSER, *WRITES))
            server = _server(connection)
            self.status.system = server.system
            slot = ensure_slot(connection)
            directory = prepare_spool(prepare_spool(self._directory, SPOOL) / server.system, SPOOL)
            spool = WalSpool(directory, server.segment)
            stored, hole = self._stored(server, slot.reserved)
            if self._removed:
                stored, hole, self._removed = None, self._removed, ""
            if stored is None:
                spool.clear()
            self.status.begun_again = hole
            if hole:
                self._gap()
            shipper = Shipper(
                self._writer, spool, self._environment, server.system, stored,
                begin=(server.timeline, slot.reserved),
            )  # fmt: skip
            beats = Heartbeats()
            shipper.ship(None, beats.covered)  # what a stream before this one has left
            spool.begin_at(shipper.timeline, shipper.segment_start)
            receiver = stack.enter_context(receiving(self._access, node, spool))
            slots = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="slots"))
            keeping = slots.submit(self._keep_slots, shipper.segment_start)
            rounds = 0
            while not self._stopped():
                self._round(connection, receiver, shipper, spool, beats)
                rounds += 1
                if rounds % SLOT_ROUNDS == 0 and keeping.done():
                    keeping = slots.submit(self._keep_slots, shipper.segment_start)
                CANCELLATION.sleep(ROUND_SECONDS)

    # ------------------------------------------------------------------ inside
    def _round(
        self,
        connection: psycopg.Connection[Any],
        receiver: WalReceiver,
        shipper: Shipper,
        spool: WalSpool,
        beats: Heartbeats,
    ) -> None:
        with answered_within(connection):
            lsn = beats.beat(connection)
        for _ in polling(RECEIVE_SECONDS, pause=RECEIVE_PAUSE):
            written = receiver.written()
            if written is not None and written[1] >= lsn:
                break
        timeline = shipper.timeline
        try:
            shipper.ship(receiver.written(), beats.covered)
            self.status.store = ""
        except TemporaryError as exc:
            self.status.store = str(exc)
            log.warning("WAL was not stored, it waits in the spool: %s", exc)
        if shipper.timeline != timeline:
            beats.forget()
        status = self.status
        status.covers, status.newest = shipper.covers, beats.newest
        status.stored_lsn, status.timeline = shipper.lsn, shipper.timeline
        if shipper.diverged and not status.diverged:
            self._gap()
        status.diverged, status.spool_bytes = shipper.diverged, spool.size()
        self._observe(status)
        ended = receiver.ended
        if ended is not None:
            if REMOVED in ended:
                self._removed = (
                    f"the server no longer has the WAL from {lsn_text(shipper.segment_start)} on"
                )
            words = " ".join(ended.partition(" exited with ")[2].split())
            raise TemporaryError(
                f"pg_receivewal exited with {words}", delay=1.0
            )  # it quotes no rows
        if status.spool_bytes > self._spool_bytes:
            raise TemporaryError(
                f"the spool {spool.directory} has {status.spool_bytes} bytes of WAL that the store has not taken: "
                f"nothing more is received. The servers keep it up to max_slot_wal_keep_size. {status.store}",
                delay=5.0,
            )

    def _gap(self) -> None:
        self.status.gaps += 1
        self.status.last_gap = datetime.now(UTC)

    def _stored(self, server: Server, reserved: int) -> tuple[StoredPosition | None, str]:
        """Where the stored WAL of this history ends, or None; then why stored WAL is not continued, "" if none is.

        The WAL before the slot's LSN is stored, so only what follows is listed.
        """
        timelines = (server.timeline, *server.switches)
        found = self._position(server, timelines, reserved)
        if found is not None:
            return found, ""
        newest = newest_start(self._store, self._environment, server.system, timelines)
        if newest is not None:  # the slot was made again
            found = self._position(server, timelines, newest)
            if found is not None:
                return found, ""
        prefix = f"{wal_prefix(self._environment)}{server.system}/"
        if next(iter(self._store.list(prefix)), None) is None:
            return None, ""
        return None, f"the server's timeline {server.timeline} does not continue what is stored"

    def _position(
        self, server: Server, timelines: tuple[int, ...], lsn: int
    ) -> StoredPosition | None:
        """Where the stored WAL of this history ends, if that is at an LSN's segment or behind it."""
        start = max(
            0, lsn - lsn % server.segment - server.segment
        )  # the segment may not have begun
        listing = list_tail(
            self._store, self._environment, self._signers,
            system=server.system, timelines=timelines, start=start,
        )  # fmt: skip
        for key, why in listing.refused.items():
            log.warning("WAL object %s does not count: %s", key, why)
        lines = listing.of(server.system).coverage.lines
        for line in sorted(lines, key=lambda one: one.end, reverse=True):
            objects = line.objects
            if line.timeline != server.timeline:
                switch = server.switches[line.timeline]
                if line.end > switch:  # the old primary was ahead of the new one
                    boundary = switch - switch % server.segment
                    objects = tuple(one for one in objects if one.end <= boundary)
            if objects:
                return stored_position(objects, server.segment)
        return None

    def _keep_slots(self, lsn: int) -> None:
        """Keep each node's WAL from an LSN on; a node that cannot be reached is asked again later."""
        members = self._access.settings.components.postgresql.members
        for node in self._access.endpoints(STATEFULSET, members, PORT):
            try:
                with connect_long(self._access, node) as connection, answered_within(connection):
                    ensure_slot(connection)
                    advance_slot(connection, lsn)
                    if use := slot_use(connection):
                        self.status.slots = {**self.status.slots, node.member: use}
            except (psycopg.Error, OSError) as exc:
                log.info("%s: its replication slot was not advanced: %s", node.member, exc)


@dataclass(frozen=True)
class Server:
    """What the primary says of its WAL.

    Attributes:
        system: system identifier.
        timeline: that it writes.
        segment: size of a segment, bytes.
        switches: earlier timeline of its history → LSN at which it was left.
    """

    system: str
    timeline: int
    segment: int
    switches: dict[int, int]


def _server(connection: psycopg.Connection[Any]) -> Server:
    row = connection.execute(SERVER).fetchone()
    assert row is not None
    system, file, segment, history = row
    return Server(system, int(file[:8], 16), int(segment), dict(read_switches(history or "")))
