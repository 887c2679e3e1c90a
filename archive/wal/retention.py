"""Decides which stored WAL may be removed: what no kept base backup needs, and pieces that larger objects replace.

A kept base backup needs all WAL from the segment of its end on. What is not understood stays: WAL of a database cluster
whose base backups cannot be read, timelines that left before, and pieces that do not lead to a stored segment.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from archive.backup.manifest import Manifest
from archive.wal.bucket import WalListing
from archive.wal.names import WalObject
from archive.wal.point import Base, base_of
from errors import PermanentError


def expired_wal(
    listing: WalListing, kept: Iterable[Manifest], before: datetime
) -> tuple[WalObject, ...]:
    """Choose the WAL that may be removed.

    Args:
        listing: of the stored WAL.
        kept: manifests of all backups of PostgreSQL that are kept.
        before: younger objects stay.
    """
    bases: dict[str, list[Base]] = {}
    unknown: set[str] = set()
    for manifest in kept:
        try:
            base = base_of(manifest)
        except PermanentError:
            unknown.add(manifest.engine.identity)
            continue
        if base is not None:
            bases.setdefault(base.system, []).append(base)
    expired: list[WalObject] = []
    for system, objects in listing.objects.items():
        if system in unknown or system not in bases:
            continue
        needed = min(base.end - base.end % base.segment for base in bases[system])
        segment = min(base.segment for base in bases[system])
        replaced = listing.of(system).replaced(segment)
        expired += [one for one in objects if one.end <= needed or one in replaced]
    return tuple(one for one in expired if one.stored < before)
