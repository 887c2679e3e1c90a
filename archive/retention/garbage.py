"""Removes what belongs to no backup: incomplete uploads, and objects whose manifest was never written.

Only objects older than any backup takes are removed, because a running backup looks the same. A backup whose manifest
was deleted in a versioned bucket is not garbage (`archive.catalogue.hidden`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from archive.backup.manifest import FILE, begun_of
from archive.catalogue.hidden import HiddenSet, find_hidden
from archive.object_store.entries import Version
from archive.object_store.store import Store
from errors import PermanentError


@dataclass(frozen=True)
class Garbage:
    """What may be removed.

    Attributes:
        uploads: key and identity of each.
        objects: key of each.
        size: bytes of the objects.
        hidden: backups whose manifest was deleted; they are not removed.
    """

    uploads: tuple[tuple[str, str], ...]
    objects: tuple[str, ...]
    size: int
    hidden: tuple[HiddenSet, ...] = ()


def find_garbage(store: Store, environment: str, cutoff: datetime) -> Garbage:
    """Find orphaned objects and uploads in an environment's part of the bucket.

    Args:
        store: the bucket.
        environment: name.
        cutoff: younger objects are ignored.
    """
    root = f"{environment}/"
    uploads = tuple(
        (upload.key, upload.identity) for upload in store.pending(root) if upload.begun < cutoff
    )
    versions = list(store.versions(root))
    hidden = find_hidden(versions)
    sets = {e.key.removesuffix(FILE) for e in versions if e.current and e.key.endswith(f"/{FILE}")}
    sets |= {backup.prefix for backup in hidden}
    entries: dict[str, Version] = {}  # the newest bytes of each, deleted ones too: they take room
    for version in versions:
        if not version.marker and (
            version.key not in entries or version.modified > entries[version.key].modified
        ):
            entries[version.key] = version
    objects = []
    for entry in entries.values():
        parts = entry.key.split("/")
        begun = begun_of(parts[2]) if len(parts) > 3 else None
        prefix = "/".join(parts[:3]) + "/"
        abandoned = begun is not None and begun < cutoff and prefix not in sets
        probe = parts[1] == "self-test" and entry.modified < cutoff
        if entry.modified < cutoff and (abandoned or probe):
            objects.append(entry)
    return Garbage(uploads, tuple(e.key for e in objects), sum(e.size for e in objects), hidden)


def collect_garbage(store: Store, waste: Garbage) -> None:
    """Remove it.

    Raises:
        TemporaryError: the store does not answer; the next call finds the rest.
    """
    for key, identity in waste.uploads:
        store.abort(key, identity)
    for key in waste.objects:
        try:
            store.purge(key)
        except PermanentError:  # object lock holds it; a later sweep takes it
            continue
