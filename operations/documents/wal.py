"""What is known of WAL that is stored between two backups: how its stream stands, and what is stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from operations.documents.base import Document, one_of
from operations.documents.environment import Check

WAITING, CONNECTING, STREAMING, INTERRUPTED, ENDED = (
    "waiting", "connecting", "streaming", "interrupted", "ended",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class WalSlot(Document):
    """The replication slot by which a node keeps WAL that is not stored yet.

    Attributes:
        member: the node.
        held_bytes: WAL that the node keeps for it.
        limit_bytes: size at which the node drops it (`max_slot_wal_keep_size`); null without a limit.
    """

    member: str
    held_bytes: int
    limit_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class WalNote(Document):
    """How a stream of WAL stands, as its holder noted it on the Lease a few seconds ago.

    Attributes:
        state: what it does.
        reason: why it does not stream; empty if it does.
        noted: when, by the holder's clock.
        system: system identifier of the database cluster; empty before the first connection.
        timeline: of the newest stored WAL.
        stored_lsn: behind the last stored byte, as PostgreSQL writes it.
        covers: each commit until then is stored, by the primary's clock; null if that is not known.
        recovery_point_seconds: age of the newest stored commit; null if that is not known.
        spool_bytes: that wait for the store.
        spool_limit_bytes: at which nothing more is received (`wal.postgresql.spool_bytes`).
        store: why the store takes nothing; empty if it does.
        diverged: why the server's WAL does not continue the stored one; empty if it does.
        hole: why WAL is missing before the newest chain; empty if none is.
        gaps: that streams have left so far.
        last_gap: when the WAL behind the newest gap began to be stored; null without a gap.
        slots: one a node.
    """

    state: Annotated[str, one_of(WAITING, CONNECTING, STREAMING, INTERRUPTED, ENDED)]
    reason: str
    noted: datetime
    system: str
    timeline: int
    stored_lsn: str
    covers: datetime | None
    recovery_point_seconds: float | None
    spool_bytes: int
    spool_limit_bytes: int
    store: str
    diverged: str
    hole: str
    gaps: int
    last_gap: datetime | None
    slots: tuple[WalSlot, ...]


@dataclass(frozen=True, kw_only=True)
class WalStream(Document):
    """The stream of a component's WAL.

    Attributes:
        component: name.
        holder: who holds its Lease; empty if nobody does.
        recovery_point: each commit until then is stored; null if that is not known.
        recovery_point_seconds: how long ago that is; null if that is not known.
        note: of its last holder; null if there is none, or it cannot be read.
    """

    component: str
    holder: str
    recovery_point: datetime | None
    recovery_point_seconds: float | None
    note: WalNote | None


@dataclass(frozen=True, kw_only=True)
class WalRange(Document):
    """WAL that is stored without a gap.

    Attributes:
        timelines: of it, in the order of recovery.
        start: LSN of its first byte.
        end: LSN behind its last byte.
        covers: each commit until then is in it, by the primary's clock; null if that is not known.
        begun: when its first byte was stored.
        objects: number of them on the way from start to end.
    """

    timelines: tuple[int, ...]
    start: str
    end: str
    covers: datetime | None
    begun: datetime
    objects: int


@dataclass(frozen=True, kw_only=True)
class WalSystem(Document):
    """The stored WAL of one database cluster.

    Attributes:
        system: its system identifier.
        ranges: what is stored, by start.
        gaps: what is missing between them, in words.
        forks: where two different WALs of one timeline are stored, in words.
        unknown_timelines: with WAL but without their history file.
    """

    system: str
    ranges: tuple[WalRange, ...]
    gaps: tuple[str, ...]
    forks: tuple[str, ...]
    unknown_timelines: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class WalStatus(Document):
    """What WAL is stored between two backups, by the names of its objects alone, and how its stream stands.

    Attributes:
        enabled: `wal.postgresql.enabled`.
        stream: that stores it.
        systems: one a database cluster.
        refused: objects that do not count, with the reason.
        checks: what `isa doctor` says of it; empty if it is not enabled.
    """

    enabled: bool
    stream: WalStream
    systems: tuple[WalSystem, ...]
    refused: tuple[str, ...]
    checks: tuple[Check, ...]
