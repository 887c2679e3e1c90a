"""What runs end with: deploy, backup, verify, restore and rebuild, by a Prefect server and in the command's process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from operations.documents.base import Document, one_of

State = Annotated[str, one_of("completed", "failed", "cancelled", "crashed")]
Level = Annotated[str, one_of("L0", "L1", "L2", "L3", "L4", "")]
Verdict = Annotated[str, one_of("pass", "partial", "fail", "error", "not-attempted")]


@dataclass(frozen=True, kw_only=True)
class Run(Document):
    """How a run ended.

    Attributes:
        state: how it ended; `crashed` and `cancelled` by a Prefect server only.
        seconds: wall time.
        message: how it ended in words, with every cause.
        flow_run: id of the flow run; empty with `--local`.
    """

    state: State
    seconds: float
    message: str
    flow_run: str = ""


@dataclass(frozen=True, kw_only=True)
class DeployNode(Document):
    """How a node of a deploy ended.

    Attributes:
        name: `storage-classes`, `namespace` or a component.
        outcome: how it ended; `skipped` if a node that it needs failed.
        seconds: from its start to its end, with retries.
        reason: why it did not simply succeed.
    """

    name: str
    outcome: Annotated[
        str, one_of("installed", "upgraded", "unchanged", "failed", "skipped", "not-attempted")
    ]
    seconds: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class Deploy(Run):
    """How a deploy ended.

    Attributes:
        nodes: one result each, in the order of the graph.
        blocked: findings of the preflight that stopped it before the first change.
    """

    nodes: tuple[DeployNode, ...]
    blocked: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ComponentBackup(Document):
    """How the backup of a component ended.

    Attributes:
        component: name.
        outcome: how it ended; `exists` if there is a backup of this slot already, `skipped` if another one of the
            component was running and this one was between two nightly ones.
        id: of the backup; empty if there is none.
        bytes_read: plain bytes.
        bytes_stored: bytes in the bucket.
        seconds: wall time.
        manifest: key of the manifest in the bucket; empty if there is none.
        reason: why it is not complete.
    """

    component: str
    outcome: Annotated[
        str, one_of("complete", "partial", "exists", "skipped", "failed", "not-attempted")
    ]
    id: str
    bytes_read: int
    bytes_stored: int
    seconds: float
    manifest: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Backup(Run):
    """How a run of backups ended.

    Attributes:
        backups: one result per component.
    """

    backups: tuple[ComponentBackup, ...]


@dataclass(frozen=True, kw_only=True)
class BackupProof(Document):
    """How the verification of a backup ended.

    Attributes:
        backup: id of the backup; `ID@POINT` if a point behind it was recovered to.
        component: of the backup.
        verdict: whether it was restored, and compared equal; `error` if there is no verdict.
        level: the highest one reached.
        compared: number of measures that were compared; of a point, tables and indexes that were checked.
        seconds: wall time.
        reason: why it is not a pass; of a pass the proof in one sentence.
        scratch: engine that the backup was restored into.
    """

    backup: str
    component: str
    verdict: Verdict
    level: Level
    compared: int
    seconds: float
    reason: str
    scratch: str


@dataclass(frozen=True, kw_only=True)
class Verify(Run):
    """How a run of verifications ended.

    Attributes:
        proofs: one result a backup.
    """

    proofs: tuple[BackupProof, ...]


@dataclass(frozen=True, kw_only=True)
class Difference(Document):
    """Something that did not come back as it was.

    Attributes:
        unit: that differs from the backup.
        item: what of it: table, type of key, label.
        what: how it differs.
    """

    unit: str
    item: str
    what: str


@dataclass(frozen=True, kw_only=True)
class ComponentRestore(Document):
    """How the restore of a component ended.

    Attributes:
        backup: id of the backup that was restored.
        component: of the backup.
        outcome: how it ended; `by-hand` if nothing was done and a person has to restore it.
        safety_backup: id of the backup of the data that was replaced; empty if there was none.
        kept: what is kept of the old data, in words.
        not_replaced: unit of the backup that was not restored → why.
        differences: between the backup and what is there now.
        stages: stage → seconds.
        seconds: wall time.
        reason: why the outcome is not `restored`.
    """

    backup: str
    component: str
    outcome: Annotated[str, one_of("restored", "different", "failed", "by-hand", "not-attempted")]
    safety_backup: str
    kept: tuple[str, ...]
    not_replaced: dict[str, str]
    differences: tuple[Difference, ...]
    stages: dict[str, float]
    seconds: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class Restore(Run):
    """How a restore ended.

    Attributes:
        restores: one result a component.
    """

    restores: tuple[ComponentRestore, ...]


@dataclass(frozen=True, kw_only=True)
class RebuildStep(Document):
    """How a step of a rebuild ended.

    Attributes:
        name: of the step.
        outcome: how it ended; `done-earlier` by the run that this one resumes.
        seconds: wall time.
        reason: what was done, or why it failed.
    """

    name: Annotated[
        str,
        one_of(
            "fence", "backup", "proof", "uninstall", "volumes", "install", "restore", "dependants"
        ),
    ]
    outcome: Annotated[str, one_of("done", "done-earlier", "failed", "skipped", "not-attempted")]
    seconds: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class Rebuild(Run):
    """How a rebuild ended.

    Attributes:
        component: name.
        rebuild: id of the rebuild; empty if it did not begin, or was ended before it could report.
        steps: one result each, in their order.
        backup: id of the backup that was restored, or taken; empty if there is none.
        retained_volumes: old volumes that are kept.
    """

    component: str
    rebuild: str
    steps: tuple[RebuildStep, ...]
    backup: str
    retained_volumes: tuple[str, ...]
