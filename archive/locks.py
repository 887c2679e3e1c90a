"""Extends the object locks of the sets that retention keeps.

A lock has the date that it was given when the object was written, while retention keeps a monthly set for a year. So
the lock is a window that moves along: every night each kept set is locked for the full number of days again (as kopia
does, https://kopia.io/docs/advanced/ransomware-protection/). A lock of mode compliance only ever becomes longer.

A lock is one version's. Somebody who overwrites an object has the newest one; the backup's own lies below it, and is
locked too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from archive.entries import Version
from archive.manifest import FILE, Manifest
from archive.store import Missing, Store
from errors import PermanentError

THREADS = 8  # a request is a round trip
SLACK = timedelta(hours=1)  # a lock that lacks less than that is left alone: it was extended today


@dataclass
class Extension:
    """What became of the locks.

    Attributes:
        until: date that all of them have at least; None where no lock is used.
        extended: objects whose lock was extended.
        refused: id of a set whose lock could not be extended → why.
    """

    until: datetime | None = None
    extended: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def extend(store: Store, sets: Mapping[str, str], until: datetime) -> Extension:
    """Lock every version of all objects of some sets until a date, where it is locked for a shorter time.

    Args:
        store: the bucket, with object lock.
        sets: id of each that stays → its prefix.
        until: the date.

    Raises:
        TemporaryError: the store is away; the next call goes on.
    """
    done = Extension(until)
    with ThreadPoolExecutor(THREADS) as pool:
        for identity, prefix in sets.items():
            try:
                there = [one for one in store.versions(prefix) if not one.marker]
                # The manifest first: it is what removal begins with, so no lock of the set may outlast its own.
                first = [one for one in there if one.key == prefix + FILE]
                done.extended += sum(_extend(store, one, until) for one in first)
                rest = [one for one in there if one.key != prefix + FILE]
                done.extended += sum(pool.map(lambda one: _extend(store, one, until), rest))
            except PermanentError as exc:
                done.refused[identity] = str(exc)
    return done


def shortest(store: Store, sets: Iterable[Manifest]) -> dict[str, datetime | None]:
    """Until when the manifests of some sets are locked, by id; None where one is not locked at all.

    Raises:
        TemporaryError, PermanentError: the store cannot be asked.
    """
    listed = list(sets)
    with ThreadPoolExecutor(THREADS) as pool:
        dates = pool.map(lambda one: store.locked_until(one.own_key), listed)
        return {one.id: date for one, date in zip(listed, dates, strict=True)}


def _extend(store: Store, one: Version, until: datetime) -> bool:
    """Extend one lock; False where it is long enough, or where the object is gone, which a proof finds."""
    try:
        now = store.locked_until(one.key, one.identity)
        if now is not None and now >= until - SLACK:
            return False
        store.lock(one.key, until, one.identity)
    except Missing:
        return False
    return True
