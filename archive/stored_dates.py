"""Compares the store's own date of each manifest with the times inside its signature.

A manifest is written seconds after its backup ended. One that the store dates days later was put there again: a replay
of a backup that retention had deleted, or a copy of the bucket. A copy of a bucket leaves *no* date from before it; a
replay leaves the other backups with theirs. That is what tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from archive.manifest import Manifest

LATE = timedelta(days=1)  # the manifest's upload may be repeated for hours; clocks differ by less


@dataclass(frozen=True)
class StoredDates:
    """What the store's dates say.

    Attributes:
        copied: when the bucket was copied as a whole; None if it was not.
        replayed: id of each backup that was stored again by itself → when.
    """

    copied: datetime | None
    replayed: dict[str, datetime]


def judge_dates(sets: Mapping[str, Manifest], written: Mapping[str, datetime]) -> StoredDates:
    """Tell a copied bucket from backups that were stored again.

    Args:
        sets: by id.
        written: id of each → the store's date of its manifest.
    """
    late = {
        identity: written[identity]
        for identity, one in sets.items()
        if identity in written and written[identity] - one.ended > LATE
    }
    if not late:
        return StoredDates(None, {})
    first = min(late.values())
    if any(at < first for at in written.values()):
        return StoredDates(None, late)
    after = {identity: at for identity, at in late.items() if sets[identity].ended >= first}
    return StoredDates(first, after)
