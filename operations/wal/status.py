"""What WAL is stored, and how its stream stands: from names of objects and the Lease alone; no object is read."""

from __future__ import annotations

from archive.wal.bucket import WalListing, list_wal
from archive.wal.coverage import Line
from archive.wal.names import COMPONENT, lsn_text
from cluster.lease import read_holder
from components.base import Check
from operations.documents import environment as documents
from operations.documents.wal import WalRange, WalStatus, WalStream, WalSystem
from operations.environment.environment import Environment
from operations.environment.leases import wal_lease
from operations.wal.checks import check_coverage, check_stream
from operations.wal.note import read_note


def read_stream(environment: Environment) -> WalStream:
    """How the stream stands, by its Lease.

    Raises:
        TemporaryError: the API server does not answer.
    """
    text, holder = read_holder(environment.kube, environment.settings, wal_lease(COMPONENT))
    note = read_note(text)
    covers = note.covers if note else None
    seconds: float | None = None
    if covers is not None:
        seconds = round(max(0.0, (environment.kube.now() - covers).total_seconds()), 1)
    return WalStream(
        component=COMPONENT,
        holder=holder,
        recovery_point=covers,
        recovery_point_seconds=seconds,
        note=note,
    )


def check_stored(environment: Environment, listing: WalListing) -> tuple[Check, ...]:
    """Judge the stored WAL against the newest complete backup.

    Raises:
        TemporaryError, PermanentError: the backups cannot be listed.
    """
    backups = environment.catalogue((COMPONENT,)).of(COMPONENT)
    complete = [backup.begun for backup in backups if backup.outcome == "complete"]
    return tuple(check_coverage(listing, max(complete, default=None)))


def read_listing(environment: Environment) -> WalListing:
    """List the stored WAL.

    Raises:
        TemporaryError, PermanentError: the bucket cannot be listed.
    """
    settings = environment.settings
    return list_wal(environment.store, settings.environment, settings.backup.signers)


def read_wal(environment: Environment) -> WalStatus:
    """Everything that `isa wal status` shows.

    Raises:
        TemporaryError, PermanentError: the cluster or the bucket does not answer.
    """
    stream, listing = read_stream(environment), read_listing(environment)
    checks: tuple[Check, ...] = ()
    enabled = environment.settings.wal.postgresql.enabled
    if enabled:
        checks = (*check_stream(stream), *check_stored(environment, listing))
    return WalStatus(
        enabled=enabled,
        stream=stream,
        systems=tuple(_system(listing, name) for name in sorted(listing.objects)),
        refused=tuple(listing.refused.values()),
        checks=tuple(documents.Check.of(check) for check in checks),
    )


# ---------------------------------------------------------------------- inside
def _system(listing: WalListing, system: str) -> WalSystem:
    found = listing.of(system).coverage
    return WalSystem(
        system=system,
        ranges=tuple(_range(line) for line in found.lines),
        gaps=tuple(gap.words for gap in found.gaps),
        forks=found.forks,
        unknown_timelines=found.unknown,
    )


def _range(line: Line) -> WalRange:
    return WalRange(
        timelines=tuple(dict.fromkeys(one.timeline for one in line.objects)),
        start=lsn_text(line.start),
        end=lsn_text(line.end),
        covers=line.covers,
        begun=line.objects[0].stored,
        objects=len(line.objects),
    )
