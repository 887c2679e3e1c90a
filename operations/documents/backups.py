"""Backups in the bucket, and how recent their verification is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from operations.documents.base import Document, one_of
from operations.documents.runs import Level

Outcome = Annotated[str, one_of("complete", "partial")]
Kind = Annotated[str, one_of("full", "incremental")]
Freshness = Annotated[str, one_of("never", "failing", "stale", "fresh")]


@dataclass(frozen=True, kw_only=True)
class StoredBackup(Document):
    """A backup in the bucket.

    Attributes:
        id: of the backup.
        component: of the backup.
        outcome: whether it holds all that it should.
        kind: whether it needs an earlier backup.
        slot: for which night or purpose; of a backup without one its id.
        begun: start of the backup.
        ended: end of the backup.
        bytes_read: plain bytes.
        bytes_stored: bytes in the bucket.
        seconds: that it took.
        engine: name and version.
        manifest: key of the manifest in the bucket.
    """

    id: str
    component: str
    outcome: Outcome
    kind: Kind
    slot: str
    begun: datetime
    ended: datetime
    bytes_read: int
    bytes_stored: int
    seconds: float
    engine: str
    manifest: str


@dataclass(frozen=True, kw_only=True)
class Backups(Document):
    """The backups of an environment.

    Attributes:
        backups: the newest last.
        damaged: key of a manifest that cannot be used → why.
        uncommitted: prefixes without a manifest: a backup that is running, or the rest of one that failed.
    """

    backups: tuple[StoredBackup, ...]
    damaged: dict[str, str]
    uncommitted: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ComponentProof(Document):
    """How fresh the proof of a component is.

    Attributes:
        component: name.
        state: `fresh` if its last verdict is a pass that is not too old.
        last_success_backup: start of the newest complete backup; null if there is none.
        bytes_stored: its bytes in the bucket.
        last_verdict: of the last verification; empty if there is none.
        last_passing_verify: time of the last pass; null if there is none.
        verify_seconds: that the last pass took; null if that is not known.
        level: that the last pass reached; empty if that is not known.
        backup: id of the backup that passed last; empty if that is not known.
        sentence: the last pass in one sentence; empty if that is not known.
        rpo_seconds: recovery point objective: greatest age of the newest complete backup; null if it was not measured.
        rto_seconds: recovery time objective: greatest duration of a restore; null if it was not measured.
        missed: objectives that are not met, for people.
    """

    component: str
    state: Freshness
    last_success_backup: datetime | None
    bytes_stored: int
    last_verdict: Annotated[str, one_of("pass", "partial", "fail", "error", "")]
    last_passing_verify: datetime | None
    verify_seconds: float | None
    level: Level
    backup: str
    sentence: str
    rpo_seconds: float | None
    rto_seconds: float | None
    missed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Proofs(Document):
    """The proofs of an environment.

    Attributes:
        proofs: one a component.
    """

    proofs: tuple[ComponentProof, ...]
