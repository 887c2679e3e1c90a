"""Finds backups whose manifest was deleted in a bucket that keeps versions: hidden, and still there.

Somebody who may delete, but not delete versions, hides a whole backup with one request. What lies below it looks like
what a broken-off run left. It is never removed for that: a person decides whether it comes back or goes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from archive.catalogue import fetch_manifest
from archive.entries import Version
from archive.manifest import FILE, set_of
from archive.store import Refused, Store
from config.backups import BackupSigner
from errors import PermanentError

HOW = "deployments/object-store/README.md says how to bring it back and how to delete it"


@dataclass(frozen=True)
class HiddenSet:
    """A backup whose manifest was deleted.

    Attributes:
        id: of the backup.
        manifest: newest version of its manifest.
        deleted: when, by the server's clock.
    """

    id: str
    manifest: Version
    deleted: datetime

    @property
    def prefix(self) -> str:
        """Where it lies."""
        return self.manifest.key.removesuffix(FILE)


def find_hidden(versions: Iterable[Version]) -> tuple[HiddenSet, ...]:
    """The backups whose manifest is no current object, and has an earlier version.

    Args:
        versions: of all objects of an environment.
    """
    manifests: dict[str, list[Version]] = {}
    for one in versions:
        if set_of(one.key):
            manifests.setdefault(one.key, []).append(one)
    found = []
    for key, all_of_it in sorted(manifests.items()):
        earlier = [one for one in all_of_it if not one.marker]
        if earlier and not any(one.current for one in earlier):
            newest = max(earlier, key=lambda one: one.modified)
            deleted = max(
                (one.modified for one in all_of_it if one.marker), default=newest.modified
            )
            found.append(HiddenSet(set_of(key), newest, deleted))
    return tuple(found)


def explain_hidden(store: Store, one: HiddenSet, signers: Collection[BackupSigner]) -> str:
    """What happened to a hidden backup and what to do, in words.

    Args:
        store: the bucket.
        one: the backup.
        signers: whose signature counts.

    Raises:
        TemporaryError: the store is away.
    """
    version, key = one.manifest.identity, one.manifest.key
    words = f"set {one.id}: its manifest was deleted on {one.deleted:%Y-%m-%d %H:%M} UTC, version {version} of it is"
    try:
        fetch_manifest(store, key, signers, one.manifest.size, version)
    except Refused as exc:
        return f"{words} there; this key of the store may not read it ({exc}); {HOW}"
    except PermanentError as exc:
        return f"{words} there and cannot be used: {exc}; {HOW}"
    return f"{words} there and a backup worker's own: bring that version back, or delete the set by hand; {HOW}"
