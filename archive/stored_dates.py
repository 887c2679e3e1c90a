"""Compares the store's own dates with the times inside the signatures of manifests.

A manifest is written seconds after its backup ended. One that the store dates days later was put there again: a replay
of a backup that retention had deleted, or a copy of the bucket. A copy of a bucket leaves *no* date of any object from
before it, and no earlier version of a manifest; a replay leaves the other backups, their artefacts or these versions
with theirs. That is what tells them apart. Somebody who stores every object of every backup again, and deletes all
earlier versions, makes a copy: only object lock prevents that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from archive.entries import Version
from archive.manifest import Manifest, set_of

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


def judge_dates(
    sets: Mapping[str, Manifest],
    written: Mapping[str, datetime],
    oldest: Mapping[str, datetime],
) -> StoredDates:
    """Tell a copied bucket from backups that were stored again.

    Args:
        sets: by id.
        written: id of each → the store's date of its manifest.
        oldest: id of each → the store's date of the oldest of its objects.
    """
    late = {
        identity: written[identity]
        for identity, one in sets.items()
        if identity in written and written[identity] - one.ended > LATE
    }
    if not late:
        return StoredDates(None, {})
    first = min(late.values())
    if any(at < first for at in (*written.values(), *oldest.values())):
        return StoredDates(None, late)
    after = {identity: at for identity, at in late.items() if sets[identity].ended >= first}
    return StoredDates(first, after)


def stored_again(versions: Iterable[Version]) -> dict[str, datetime]:
    """Id of each backup whose manifest has a version from long before its current one → date of the current one.

    Args:
        versions: of all objects of an environment.
    """
    dates: dict[str, list[datetime]] = {}
    for one in versions:
        identity = set_of(one.key)
        if identity and not one.marker:
            dates.setdefault(identity, []).append(one.modified)
    return {
        identity: max(found)
        for identity, found in sorted(dates.items())
        if max(found) - min(found) > LATE
    }
