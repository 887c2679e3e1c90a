"""Which base backup and which stored WAL lead to a point, and which points are covered.

All of it is decided from manifests and from the names of WAL objects, before anything is read or started.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from archive.backup.manifest import Manifest
from archive.object_store.store import Store
from archive.wal.bucket import list_wal
from archive.wal.coverage import Line, NotCovered, Wal
from archive.wal.names import TimelineHistory, lsn_number, lsn_text
from archive.wal.target import RecoveryTarget
from config.sections.backups import BackupSigner
from errors import PermanentError

BASE = "base.tar"  # artefact
# Keys of a manifest's topology.
TIMELINE, SEGMENT, SETTLED = "timeline", "wal_segment_bytes", "settled"
DEFAULT_SEGMENT = 16 << 20  # of earlier manifests, which do not name it
SMALLEST_SEGMENT, LARGEST_SEGMENT = 1 << 20, 1 << 30  # of `initdb --wal-segsize`
MOMENT = timedelta(microseconds=1)  # PostgreSQL's times are not finer
LISTED = 5  # covered ranges in one message
WalOf = Callable[[str], Wal]


@dataclass(frozen=True)
class Base:
    """A base backup that recovery can begin with.

    Attributes:
        manifest: of its set.
        timeline: at its end.
        end: LSN at its end: it has all WAL before.
        segment: size of a segment, bytes.
        settled: every commit that it may hold is older, by the engine's clock.
    """

    manifest: Manifest
    timeline: int
    end: int
    segment: int
    settled: datetime

    @property
    def system(self) -> str:
        """System identifier of its database cluster."""
        return self.manifest.engine.identity

    def precedes(self, target: RecoveryTarget) -> bool:
        """Whether recovery from here can stop at a point."""
        return self.settled <= target.time if target.time else self.end <= target.lsn


@dataclass(frozen=True)
class Point:
    """A point that is covered.

    Attributes:
        target: time or LSN.
        base: that recovery begins with.
        line: the WAL that it needs, from the segment of the base's end on.
        histories: timeline history files that it needs.
    """

    target: RecoveryTarget
    base: Base
    line: Line
    histories: tuple[TimelineHistory, ...]

    @property
    def wal_bytes(self) -> int:
        """Size of its WAL as segment files."""
        size = sum(one.size for one in self.line.objects)
        return size + -size % self.base.segment

    @property
    def wal_words(self) -> str:
        """Its WAL, for people."""
        ends = f"{lsn_text(self.line.start)} to {lsn_text(self.line.end)}"
        return f"{self.wal_bytes >> 20} MiB of WAL, {ends}"

    @property
    def source(self) -> str:
        """What leads to it, for people."""
        return f"{self.base.manifest.id} and {self.wal_words}"

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.target.words} from {self.source}"


@dataclass(frozen=True)
class CoveredRange:
    """Points that one unbroken line of WAL reaches.

    Attributes:
        base: the oldest base backup on the line.
        line: the WAL behind it.
    """

    base: Base
    line: Line

    @property
    def words(self) -> str:
        """For people."""
        until = self.line.covers
        times = f"{_time(self.base.settled)} to {_time(until)} UTC, " if until else ""
        return f"{times}LSN {lsn_text(self.base.end)} to {lsn_text(self.line.end)} (from {self.base.manifest.id})"


def base_of(manifest: Manifest) -> Base | None:
    """Read from a manifest what recovery has to know of its base backup; None if the set has none.

    Raises:
        PermanentError: what the manifest says of it cannot be used.
    """
    points = [one.point for one in manifest.consistency if one.unit == "all databases"]
    names = {artefact.name.partition(".zst")[0] for artefact in manifest.artefacts}
    if not points or BASE not in names:
        return None
    topology: dict[str, Any] = manifest.topology
    try:
        timeline, segment = int(topology[TIMELINE]), int(topology.get(SEGMENT, DEFAULT_SEGMENT))
        end = lsn_number(points[0].removeprefix("LSN "))
        # an earlier manifest has the worker's time only
        settled = datetime.fromisoformat(topology.get(SETTLED, manifest.ended.isoformat()))
        settled = settled.astimezone(UTC)
    except (KeyError, ValueError, TypeError, OverflowError) as exc:
        raise PermanentError(
            f"the manifest of {manifest.id} does not say where recovery begins"
        ) from exc
    if segment & (segment - 1) or not SMALLEST_SEGMENT <= segment <= LARGEST_SEGMENT:
        raise PermanentError(
            f"the manifest of {manifest.id} has an impossible segment size: {segment}"
        )
    if timeline < 1 or not re.fullmatch(r"[0-9]{1,20}", manifest.engine.identity, re.ASCII):
        raise PermanentError(f"the manifest of {manifest.id} does not say where recovery begins")
    return Base(manifest, timeline, end, segment, settled)


def bases_of(manifests: Iterable[Manifest]) -> tuple[Base, ...]:
    """The base backups that recovery can begin with, the oldest first.

    Args:
        manifests: of sets that may be used. Partial ones do not count, nor those that depend on others than these.
    """
    usable = [manifest for manifest in manifests if manifest.outcome == "complete"]
    names = {manifest.id for manifest in usable}
    bases = (base_of(manifest) for manifest in usable if names.issuperset(manifest.needs))
    return tuple(sorted((base for base in bases if base), key=lambda base: base.manifest.begun))


def find_point(base: Base, wal: Wal, target: RecoveryTarget) -> Point:
    """Find the WAL that leads from a base backup to a point.

    Raises:
        NotCovered: it is not stored.
    """
    if not base.precedes(target):
        raise NotCovered(
            f"{base.manifest.id} is of {_time(base.settled)} UTC, LSN {lsn_text(base.end)}, behind {target.words}"
        )
    line = target.part_of(wal.from_base(base.timeline, base.end, base.segment))
    return Point(target, base, line, wal.ancestry(line.timeline))


def choose_point(
    bases: Iterable[Base], wal_of: WalOf, target: RecoveryTarget, now: datetime
) -> Point:
    """Find the newest base backup before a point whose WAL leads to it.

    Args:
        bases: the oldest first.
        wal_of: system identifier → its stored WAL.
        target: the point.
        now: the present.

    Raises:
        NotCovered: none does; with the ranges that are covered.
    """
    candidates = tuple(bases)
    reason = ""
    for base in reversed(candidates):
        if not base.precedes(target):
            continue
        try:
            return find_point(base, wal_of(base.system), target)
        except NotCovered as exc:
            reason = reason or f"{base.manifest.id}: {exc}"
    if target.time and target.time > now:
        reason = "it is in the future"
    raise NotCovered(
        f"{target.words} is not covered: {reason or 'no complete base backup is older'}. "
        f"Covered: {_listed(covered_ranges(candidates, wal_of))}"
    )


def covered_ranges(bases: Iterable[Base], wal_of: WalOf) -> tuple[CoveredRange, ...]:
    """The points that are covered, one range for each unbroken line, the oldest first."""
    ranges: dict[tuple[str, int, int], CoveredRange] = {}
    for base in bases:
        try:
            line = wal_of(base.system).from_base(base.timeline, base.end, base.segment)
        except NotCovered:
            continue
        ranges.setdefault((base.system, line.timeline, line.end), CoveredRange(base, line))
    return tuple(ranges.values())


def newest_target(base: Base, wal: Wal) -> RecoveryTarget:
    """The newest time that the WAL behind a base backup reaches.

    Raises:
        NotCovered: the WAL behind it is not stored, or has no commit behind it.
    """
    line = wal.from_base(base.timeline, base.end, base.segment)
    if line.covers is None or line.covers <= base.settled:
        raise NotCovered(f"no commit behind {base.manifest.id} is stored. Stored: {line.words}")
    return RecoveryTarget(time=line.covers - MOMENT)


def chain_faults(base: Base, wal: Wal) -> tuple[str, ...]:
    """What breaks the WAL behind a base backup, by names alone: missing or replaced objects, a missing history file.

    The newest object alone can be missing without a trace: nothing follows it.
    """
    found = wal.coverage
    broken = [gap for gap in found.gaps if gap.after.start > base.end]
    faults = [
        f"{gap.words} (between {gap.before.objects[-1].key} and {gap.after.objects[0].key})"
        for gap in broken
    ]
    first = min(found.lines, key=lambda line: line.start, default=None)
    if first is not None and first.start > base.end and first.objects[0].before:
        faults.append(f"the WAL before {first.objects[0].key} is missing")
    faults += [
        f"the history file of timeline {timeline} is missing"
        for timeline in found.unknown
        if timeline > base.timeline
    ]
    return tuple(faults)


def began_later(base: Base, wal: Wal) -> bool:
    """Whether storing WAL began only after a base backup: then no point behind it was ever covered."""
    lines = wal.coverage.lines
    return all(line.start > base.end and not line.objects[0].before for line in lines[:1])


def stored_wal(store: Store, environment: str, signers: Collection[BackupSigner]) -> WalOf:
    """Read the names of the stored WAL, of each database cluster once."""
    listed: dict[str, Wal] = {}

    def wal_of(system: str) -> Wal:
        if system not in listed:
            listed[system] = list_wal(store, environment, signers, system).of(system)
        return listed[system]

    return wal_of


# ---------------------------------------------------------------------- inside
def _listed(ranges: tuple[CoveredRange, ...]) -> str:
    if not ranges:
        return "nothing, because no WAL is stored behind a complete base backup"
    words = [one.words for one in ranges[-LISTED:]]
    return "; ".join(words)


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"
