"""Compares the store's own dates with the times inside the signatures of manifests.

A manifest is written seconds after its backup ended. If the store dates it days later, it was stored again: a replay of
a backup that retention had deleted, or a copy of the bucket. A copy of a bucket leaves *no* date of any object from
before it, and no earlier version of a manifest. A replay leaves the dates of the other backups, of their artefacts or
of these versions. That distinguishes the two. Someone who stores every object of every backup again, and deletes all
earlier versions, makes a copy: only object lock prevents that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from archive.backup.manifest import Manifest, set_of
from archive.object_store.entries import Version

LATE = timedelta(days=1)  # an upload may be repeated for hours; clocks differ by less than a day


@dataclass(frozen=True)
class StoredDates:
    """The result of comparing the store's dates.

    Attributes:
        copied: when the bucket was copied as a whole; None if it was not.
        replayed: id of each backup that was stored again by itself → when.
    """

    copied: datetime | None
    replayed: dict[str, datetime]


def judge_dates(
    sets: Mapping[str, Manifest],
    written: Mapping[str, datetime],
    oldest: Mapping[str, datetime],
) -> StoredDates:
    """Distinguish a copied bucket from backups that were stored again.

    Args:
        sets: backups by id.
        written: id of each → the store's date of its manifest.
        oldest: id of each → the store's date of the oldest of its objects.
    """
    late = {
        identity: written[identity]
        for identity, manifest in sets.items()
        if identity in written and written[identity] - manifest.ended > LATE
    }
    if not late:
        return StoredDates(None, {})
    earliest = min(late.values())
    if any(at < earliest for at in (*written.values(), *oldest.values())):
        return StoredDates(None, late)
    copied_late = {
        identity: at for identity, at in late.items() if sets[identity].ended >= earliest
    }
    return StoredDates(earliest, copied_late)


def stored_again(versions: Iterable[Version]) -> dict[str, datetime]:
    """Return backups whose manifest has a version from long before its current one: id → date of the current one.

    Args:
        versions: of all objects of an environment.
    """
    dates: dict[str, list[datetime]] = {}
    for version in versions:
        identity = set_of(version.key)
        if identity and not version.marker:
            dates.setdefault(identity, []).append(version.modified)
    return {
        identity: max(times)
        for identity, times in sorted(dates.items())
        if max(times) - min(times) > LATE
    }
