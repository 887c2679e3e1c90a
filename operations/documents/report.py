"""The report: history of backups, verifications and deploys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from operations.documents.backups import Freshness, Kind, Outcome
from operations.documents.base import Document, one_of
from operations.documents.environment import Check, Status
from operations.documents.runs import Level


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
