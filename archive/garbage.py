"""Removes what no set has: uploads that nobody ended, and objects whose manifest was never written.

Only what is older than any backup takes: a run that is under way looks just the same. A set whose manifest was deleted
in a bucket with versions is none of it (`archive.hidden`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from archive.entries import Version
from archive.hidden import HiddenSet, find_hidden
from archive.manifest import FILE, begun_of
from archive.store import Store
from errors import PermanentError


@dataclass(frozen=True)
class Garbage:
    """What may be removed.

    Attributes:
        uploads: key and identity of each.
        objects: key of each.
        size: bytes of the objects.
        hidden: sets whose manifest was deleted, and which stay.
    """

    uploads: tuple[tuple[str, str], ...]
    objects: tuple[str, ...]
    size: int
    hidden: tuple[HiddenSet, ...] = ()


def find_garbage(store: Store, environment: str, before: datetime) -> Garbage:
    """Look for waste in an environment's part of the bucket.

    Args:
        store: the bucket.
        environment: name.
        before: what is younger is left alone.
    """
    root = f"{environment}/"
    uploads = tuple((one.key, one.identity) for one in store.pending(root) if one.begun < before)
    versions = list(store.versions(root))
    hidden = find_hidden(versions)
    sets = {e.key.removesuffix(FILE) for e in versions if e.current and e.key.endswith(f"/{FILE}")}
    sets |= {one.prefix for one in hidden}
    entries: dict[str, Version] = {}  # the newest bytes of each, deleted ones too: they take room
    for one in versions:
        if not one.marker and (one.key not in entries or one.modified > entries[one.key].modified):
            entries[one.key] = one
    objects = []
    for entry in entries.values():
        parts = entry.key.split("/")
        begun = begun_of(parts[2]) if len(parts) > 3 else None
        prefix = "/".join(parts[:3]) + "/"
        abandoned = begun is not None and begun < before and prefix not in sets
        probe = parts[1] == "self-test" and entry.modified < before
        if entry.modified < before and (abandoned or probe):
            objects.append(entry)
    return Garbage(uploads, tuple(e.key for e in objects), sum(e.size for e in objects), hidden)


def collect_garbage(store: Store, waste: Garbage) -> None:
    """Remove it.

    Raises:
        TemporaryError: the store is away; what is left is found the next time.
    """
    for key, identity in waste.uploads:
        store.abort(key, identity)
    for key in waste.objects:
        try:
            store.purge(key)
        except PermanentError:  # object lock holds it; a later sweep takes it
            continue
