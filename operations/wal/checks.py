"""What is wrong with the stream of WAL or with what it stored: for the doctor, `isa status` and `isa wal status`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from archive.wal.bucket import WalListing
from archive.wal.names import COMPONENT
from components.base import Check
from config.text.printable import first_of
from operations.documents.wal import STREAMING, WalNote, WalStream
from operations.environment.leases import wal_lease
from operations.runner.transfer import human

# The stream stores every half second. A failover takes about ten seconds, a restart of the stream about twenty.
RECOVERY_POINT_SECONDS = 60.0
FILLING = 0.5  # part of the spool, and of max_slot_wal_keep_size, that is a finding
BACKUP = f"isa backup {COMPONENT}"
LISTED = 5  # names in one finding


def check_stream(stream: WalStream) -> Iterator[Check]:
    """Judge a stream by its Lease.

    Args:
        stream: as its Lease shows it.
    """
    note = stream.note
    yield _holder(stream)
    if note is None:
        return
    yield _recovery_point(stream)
    yield Check(
        "WAL history",
        not note.diverged,
        note.diverged or "the server's WAL continues the stored one",
    )
    yield _spool(note)
    yield _slots(note)


def check_coverage(listing: WalListing, backup: datetime | None) -> Iterator[Check]:
    """Judge what is stored.

    Args:
        listing: of the WAL.
        backup: start of the newest complete backup; None if there is none. A gap before it costs the times in it only.
    """
    open_gaps: list[str] = []
    others: list[str] = []
    closed = 0
    for system in sorted(listing.objects):
        found = listing.of(system).coverage
        for gap in found.gaps:
            if backup is not None and gap.after.objects[0].stored < backup:
                closed += 1
            else:
                open_gaps.append(gap.words)
        others += found.forks
        others += [
            f"the history file of timeline {number} is not stored" for number in found.unknown
        ]
    hint = f"no gap since the newest backup; {closed} before it" if closed else "no gap"
    if not listing.objects:
        hint = "nothing is stored yet"
    if open_gaps:
        hint = (
            f"{'; '.join(first_of(open_gaps, LISTED))}. No time behind it can be restored before the next backup: "
            f"{BACKUP}"
        )
    yield Check("WAL coverage", not open_gaps, hint)
    if others:
        hint = f"{'; '.join(first_of(others, LISTED))}. Recovery may be refused there: {BACKUP}"
        yield Check("WAL timelines", False, hint)
    if listing.refused:
        hint = f"{len(listing.refused)} do not count: {'; '.join(first_of([*listing.refused.values()], LISTED))}"
        yield Check("WAL objects", False, hint, critical=False)


# ---------------------------------------------------------------------- inside
def _holder(stream: WalStream) -> Check:
    lease = wal_lease(stream.component)
    if not stream.holder:
        hint = (
            f"nobody holds Lease {lease}: commits are not stored until the next backup. Start Deployment isa-wal, or "
            "`isa wal stream`"
        )
        return Check("WAL stream", False, hint)
    if stream.note is None:
        return Check("WAL stream", True, f"held by {stream.holder}; it has not noted its state yet")
    if stream.note.state != STREAMING:
        hint = f"{stream.note.state}: {stream.note.reason or 'no reason is known'} (held by {stream.holder})"
        return Check("WAL stream", False, hint, critical=False)
    return Check(
        "WAL stream", True, f"streaming timeline {stream.note.timeline}, held by {stream.holder}"
    )


def _recovery_point(stream: WalStream) -> Check:
    seconds = stream.recovery_point_seconds
    if stream.recovery_point is None or seconds is None:
        return Check(
            "WAL recovery point", False, "not known yet: no commit was stored", critical=False
        )
    good = seconds <= RECOVERY_POINT_SECONDS
    hint = (
        f"{seconds:.0f} s: commits until {stream.recovery_point:%Y-%m-%d %H:%M:%S} UTC are stored"
    )
    if not good:
        hint += f". More than {RECOVERY_POINT_SECONDS:.0f} s: a loss of all nodes now loses later commits"
    return Check("WAL recovery point", good, hint)


def _spool(note: WalNote) -> Check:
    full = note.spool_bytes >= note.spool_limit_bytes
    hint = f"{human(note.spool_bytes)} of {human(note.spool_limit_bytes)} wait for the store"
    if note.store:
        hint += f": {note.store}"
    if full:
        hint += (
            ". It is full: nothing more is received, and the servers keep the WAL in their slots"
        )
    good = note.spool_bytes < FILLING * note.spool_limit_bytes and not note.store
    return Check("WAL spool", good, hint, critical=full)


def _slots(note: WalNote) -> Check:
    faults = []
    for slot in note.slots:
        if slot.limit_bytes is None:
            faults.append(
                f"{slot.member} has no max_slot_wal_keep_size: a stream that stops would fill its disk"
            )
        elif slot.held_bytes > FILLING * slot.limit_bytes:
            faults.append(
                f"{slot.member} keeps {human(slot.held_bytes)} of {human(slot.limit_bytes)} "
                "(max_slot_wal_keep_size); beyond it the WAL is dropped and a gap remains"
            )
    held = max((slot.held_bytes for slot in note.slots), default=0)
    return Check(
        "WAL slots", not faults, "; ".join(faults) or f"the nodes keep up to {human(held)}"
    )
