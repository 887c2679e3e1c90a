"""What retention removes, keeps and locks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from operations.documents.base import Document


@dataclass(frozen=True, kw_only=True)
class RetainedBackup(Document):
    """What retention decides about a backup.

    Attributes:
        id: of the backup.
        component: of the backup.
        begun: start of the backup.
        bytes_stored: bytes in the bucket.
        keep: whether it stays by the rules.
        reasons: why it stays.
        held: why it could not be removed; empty if it could, or need not be.
    """

    id: str
    component: str
    begun: datetime
    bytes_stored: int
    keep: bool
    reasons: tuple[str, ...]
    held: str


@dataclass(frozen=True, kw_only=True)
class Orphans(Document):
    """Objects that belong to no backup.

    Attributes:
        uploads: number of uploads that were never completed.
        objects: number of objects.
        bytes: of the objects.
    """

    uploads: int
    objects: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class ExpiredWal(Document):
    """Stored WAL of PostgreSQL that no kept backup needs.

    Attributes:
        objects: number of objects.
        bytes: of WAL in them, before compression.
    """

    objects: int = 0
    bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Locks(Document):
    """What became of the object locks.

    Attributes:
        until: date that all of them have at least; null where no lock is used, or none was extended.
        extended: number of objects whose lock was extended.
        refused: id of a backup whose lock could not be extended → why.
    """

    until: datetime | None
    extended: int
    refused: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Retention(Document):
    """What retention removes.

    Attributes:
        applied: whether it was removed; otherwise it is listed only.
        backups: one each.
        orphans: objects that belong to no backup.
        expired_wal: WAL that no kept backup needs.
        hidden: id of a backup whose manifest was deleted → what to do; nothing of it is removed.
        unread: key of a manifest that cannot be read → why; no backup of its component is removed.
        locks: of the backups that stay.
    """

    applied: bool
    backups: tuple[RetainedBackup, ...]
    orphans: Orphans
    hidden: dict[str, str]
    unread: dict[str, str]
    locks: Locks
    expired_wal: ExpiredWal = ExpiredWal()
