"""Extends the object locks of the backups that retention keeps.

A lock's date is set when the object is written, but retention keeps a monthly backup for a year. So the lock is a
moving window: every night each kept backup is locked again for the full number of days (as kopia does,
https://kopia.io/docs/advanced/ransomware-protection/). A lock in compliance mode can only be extended.

A lock belongs to one version. If someone overwrites an object, the new version is current; the backup's own version is
below it, and is locked too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from archive.backup.manifest import FILE, Manifest
from archive.object_store.entries import Version
from archive.object_store.store import Missing, Store
from errors import PermanentError

THREADS = 8  # a request is a round trip
SLACK = timedelta(hours=1)  # a lock that lacks less than that is left alone: it was extended today


@dataclass
class Extension:
    """Result of extending the locks.

    Attributes:
        until: date that all of them have at least; None if no lock is used.
        extended: objects whose lock was extended.
        refused: id of a backup whose lock could not be extended → why.
    """

    until: datetime | None = None
    extended: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def extend(store: Store, sets: Mapping[str, str], until: datetime) -> Extension:
    """Lock every version of all objects of some backups until a date, unless it is locked for longer already.

    Args:
        store: the bucket, with object lock.
        sets: id of each kept backup → its prefix.
        until: the date.

    Raises:
        TemporaryError: the store does not answer; the next call continues.
    """
    result = Extension(until)
    with ThreadPoolExecutor(THREADS) as pool:
        for identity, prefix in sets.items():
            try:
                versions = [version for version in store.versions(prefix) if not version.marker]
                # The manifest first: it is what removal begins with, so no lock of the backup may outlast its own.
                manifests = [version for version in versions if version.key == prefix + FILE]
                result.extended += sum(_extend(store, version, until) for version in manifests)
                artefacts = [version for version in versions if version.key != prefix + FILE]
                result.extended += sum(
                    pool.map(lambda version: _extend(store, version, until), artefacts)
                )
            except PermanentError as exc:
                result.refused[identity] = str(exc)
    return result


def shortest(store: Store, sets: Iterable[Manifest]) -> dict[str, datetime | None]:
    """Return until when the manifests of some backups are locked, by id; None for one that is not locked at all.

    Raises:
        TemporaryError, PermanentError: the store does not answer, or refuses.
    """
    kept = list(sets)
    with ThreadPoolExecutor(THREADS) as pool:
        dates = pool.map(lambda manifest: store.locked_until(manifest.own_key), kept)
        return {manifest.id: date for manifest, date in zip(kept, dates, strict=True)}


def _extend(store: Store, version: Version, until: datetime) -> bool:
    """Extend one lock; False if it is long enough, or if the object does not exist, which a verification finds."""
    try:
        now = store.locked_until(version.key, version.identity)
        if now is not None and now >= until - SLACK:
            return False
        store.lock(version.key, until, version.identity)
    except Missing:
        return False
    return True
