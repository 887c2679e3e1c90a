"""What is known of backups: the list, their proofs, retention, the report, and plans that use one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from operations.documents.base import Document, one_of
from operations.documents.environment import Check, Status
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


@dataclass(frozen=True, kw_only=True)
class Proofs(Document):
    """The proofs of an environment.

    Attributes:
        proofs: one a component.
    """

    proofs: tuple[ComponentProof, ...]


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


@dataclass(frozen=True, kw_only=True)
class ReplacedUnit(Document):
    """A unit that a restore replaces.

    Attributes:
        unit: database, stream, bucket or collection.
        bytes: in the backup.
    """

    unit: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class ComponentRestorePlan(Document):
    """What a restore of a component would do.

    Attributes:
        backup: id of the backup.
        component: of the backup.
        recovery_point: start of the backup.
        replaced: units whose data would be replaced.
        left_alone: units of the backup that stay as they are.
        writers: what happens to writers during the restore.
        proven: whether the last verdict on the backup is a pass.
        warnings: what to know before.
        by_hand: why a person has to restore it; empty if isa does.
        took: how long its parts took the last time, in words; empty if that is not known.
    """

    backup: str
    component: str
    recovery_point: datetime
    replaced: tuple[ReplacedUnit, ...]
    left_alone: tuple[str, ...]
    writers: str
    proven: bool
    warnings: tuple[str, ...]
    by_hand: str
    took: str


@dataclass(frozen=True, kw_only=True)
class RestorePlan(Document):
    """The plan of a restore.

    Attributes:
        plans: one a component.
    """

    plans: tuple[ComponentRestorePlan, ...]


@dataclass(frozen=True, kw_only=True)
class RebuildPolicy(Document):
    """What kind of rebuild it is.

    Attributes:
        component: name.
        volumes: `new` retains the old ones, `keep` reuses them.
        restore: `fresh`, `none`, or the id of a backup.
        final_backup: whether a backup is taken and verified first.
    """

    component: str
    volumes: Annotated[str, one_of("new", "keep")]
    restore: str
    final_backup: bool


@dataclass(frozen=True, kw_only=True)
class RebuildPlan(Document):
    """The plan of a rebuild.

    Attributes:
        policy: what kind of rebuild it is.
        releases: release → what is installed now; empty where nothing is.
        claims: volume claim → its size.
        units: what is fenced, backed up and restored.
        proof: the last pass of the component in one sentence.
        writers: what happens to writers during the rebuild.
        dependants: components whose gates are waited for afterwards.
        warnings: what to know before the approval.
        blocked: why it cannot start.
        digest: two plans with the same one are the same.
    """

    policy: RebuildPolicy
    releases: dict[str, str]
    claims: dict[str, str]
    units: tuple[str, ...]
    proof: str
    writers: str
    dependants: tuple[str, ...]
    warnings: tuple[str, ...]
    blocked: tuple[str, ...]
    digest: str


@dataclass(frozen=True, kw_only=True)
class UndoneRebuild(Document):
    """A rebuild that was undone.

    Attributes:
        component: name.
        rebuild: id of the rebuild.
        returned_volumes: old volumes that were put back; empty if they never left their place.
    """

    component: str
    rebuild: str
    returned_volumes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PurgedVolumes(Document):
    """Old volumes of rebuilds that were deleted.

    Attributes:
        component: name.
        purged_volumes: names.
    """

    component: str
    purged_volumes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ReportedBackup(Document):
    """A backup in the report.

    Attributes:
        id: of the backup.
        begun: start of the backup.
        seconds: that it took.
        bytes_read: plain bytes.
        bytes_stored: bytes in the bucket.
        kind: whether it needs an earlier backup.
        outcome: whether it holds all that it should.
    """

    id: str
    begun: datetime
    seconds: float
    bytes_read: int
    bytes_stored: int
    kind: Kind
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class ReportedProof(Document):
    """A verification in the report.

    Attributes:
        backup: id of the backup.
        begun: start of the verification.
        verdict: `unreadable` if its document cannot be trusted.
        level: the highest that passed; empty if that is not known.
        seconds: that it took; null if that is not known.
        sentence: what it found.
    """

    backup: str
    begun: datetime
    verdict: Annotated[str, one_of("pass", "partial", "fail", "error", "unreadable")]
    level: Level
    seconds: float | None
    sentence: str


@dataclass(frozen=True, kw_only=True)
class WeeklyTrend(Document):
    """How the complete full backups of a component change in a week, as a share; null if there are too few.

    Attributes:
        bytes_stored: of bytes in the bucket.
        seconds: of their duration.
    """

    bytes_stored: float | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class ReportedComponent(Document):
    """The history of a component.

    Attributes:
        component: name.
        state: of its proof.
        headline: whether it can be restored, in one sentence.
        last_success_backup: start of the newest complete backup; null if there is none.
        last_passing_verify: time of the last pass; null if there is none.
        weekly_trend: of its backups.
        backups: the oldest first.
        proofs: the oldest first.
    """

    component: str
    state: Freshness
    headline: str
    last_success_backup: datetime | None
    last_passing_verify: datetime | None
    weekly_trend: WeeklyTrend
    backups: tuple[ReportedBackup, ...]
    proofs: tuple[ReportedProof, ...]


@dataclass(frozen=True, kw_only=True)
class ReportedNode(Document):
    """A node of an earlier deploy.

    Attributes:
        name: of the node.
        phase: where it stood at the end of the run.
        outcome: how it ended; empty if it did not.
        seconds: since its start, or in all once it is done.
        note: what it was busy with, or why it ended so.
        began: seconds from the beginning of the run to its start.
    """

    name: str
    phase: str
    outcome: str
    seconds: float
    note: str
    began: float


@dataclass(frozen=True, kw_only=True)
class ReportedDeploy(Document):
    """An earlier deploy.

    Attributes:
        name: of its flow run.
        begun: start of the deploy.
        seconds: that it took.
        state: in which it ended.
        message: how it ended in words.
        nodes: empty if it was ended before the first began.
    """

    name: str
    begun: datetime
    seconds: float
    state: str
    message: str
    nodes: tuple[ReportedNode, ...]


@dataclass(frozen=True, kw_only=True)
class Report(Document):
    """How an environment is, and its history.

    Attributes:
        environment: name.
        made: time of the report.
        sentence: the whole in one line.
        components: one each.
        needs: node of a deploy → what it needs.
        deploys: the last ones, the newest first.
        status: as `isa status` prints it; null if it could not be asked.
        checks: what the doctor says.
        unasked: sources that could not be reached, and why.
    """

    environment: str
    made: datetime
    sentence: str
    components: tuple[ReportedComponent, ...]
    needs: dict[str, tuple[str, ...]]
    deploys: tuple[ReportedDeploy, ...]
    status: Status | None
    checks: tuple[Check, ...]
    unasked: tuple[str, ...]
