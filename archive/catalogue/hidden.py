"""Finds backups whose manifest was deleted in a versioned bucket: hidden, but still stored.

Someone with the right to delete objects, but not versions, can hide a whole backup with one request. What remains looks
like what an interrupted run left. It is never removed: a person decides whether to restore the manifest or to delete.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from archive.backup.manifest import FILE, set_of
from archive.catalogue.listing import fetch_manifest
from archive.object_store.entries import Version
from archive.object_store.store import Refused, Store
from config.sections.backups import BackupSigner
from errors import PermanentError

HOW = "deployments/object-store/README.md explains how to restore or delete it"


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
        """Its prefix in the bucket."""
        return self.manifest.key.removesuffix(FILE)


def find_hidden(versions: Iterable[Version]) -> tuple[HiddenSet, ...]:
    """Return the backups whose manifest is not a current object, but has an earlier version.

    Args:
        versions: of all objects of an environment.
    """
    manifests: dict[str, list[Version]] = {}
    for version in versions:
        if set_of(version.key):
            manifests.setdefault(version.key, []).append(version)
    hidden = []
    for key, key_versions in sorted(manifests.items()):
        earlier = [version for version in key_versions if not version.marker]
        if earlier and not any(manifest.current for manifest in earlier):
            newest = max(earlier, key=lambda version: version.modified)
            deleted = max(
                (version.modified for version in key_versions if version.marker),
                default=newest.modified,
            )
            hidden.append(HiddenSet(set_of(key), newest, deleted))
    return tuple(hidden)


def explain_hidden(store: Store, backup: HiddenSet, signers: Collection[BackupSigner]) -> str:
    """Describe what happened to a hidden backup and what to do.

    Args:
        store: the bucket.
        backup: the backup.
        signers: trusted signers.

    Raises:
        TemporaryError: the store does not answer.
    """
    version, key = backup.manifest.identity, backup.manifest.key
    summary = (
        f"backup {backup.id}: its manifest was deleted on {backup.deleted:%Y-%m-%d %H:%M} UTC, version {version} of it "
        "is"
    )
    try:
        fetch_manifest(store, key, signers, backup.manifest.size, version)
    except Refused as exc:
        return f"{summary} there; this key of the store may not read it ({exc}); {HOW}"
    except PermanentError as exc:
        return f"{summary} there, but not valid: {exc}; {HOW}"
    return f"{summary} there and signed by a backup worker: restore that version, or delete the backup by hand; {HOW}"
