"""What a run of retention has removed, kept and locked, as data and as text."""

from __future__ import annotations

from dataclasses import dataclass, field

from archive.retention.locks import Extension
from operations.backup.retention import RetentionPlan
from operations.documents import retention as documents
from operations.runner.transfer import human


@dataclass(frozen=True)
class RetentionReport:
    """How a run of retention ended.

    Attributes:
        plan: what was decided.
        applied: whether it was removed; otherwise it is listed only.
        extension: of the object locks of kept backups.
        held: id of a backup that could not be removed → why.
    """

    plan: RetentionPlan
    applied: bool
    extension: Extension
    held: dict[str, str] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """Why the run did not do everything."""
        problems = [self.plan.problem] if self.plan.problem else []
        if self.extension.refused:
            reasons = "; ".join(
                f"{name}: {reason}" for name, reason in self.extension.refused.items()
            )
            problems.append(f"object locks that could not be extended: {reasons}")
        return problems

    @property
    def summary(self) -> str:
        """What was done, in a few sentences."""
        removed, until = len(self.plan.going) - len(self.held), self.extension.until
        verb = "removed" if self.applied else "may be removed"
        summary = f"{removed} of {len(self.plan.verdicts)} backups {verb}"
        if self.held:
            summary += f"; {len(self.held)} cannot be removed yet"
        if self.plan.wal:
            size = human(sum(one.size for one in self.plan.wal))
            summary += f"; {len(self.plan.wal)} objects of WAL ({size}) {verb}"
        if until is not None:
            summary += (
                f"; {self.extension.extended} objects locked until {until:%Y-%m-%d %H:%M} UTC"
            )
        return ". ".join([summary, *self.problems])

    def document(self) -> documents.Retention:
        """As `isa retention --json` prints it, and as a run keeps it."""
        garbage, extension = self.plan.waste, self.extension
        backups = (
            documents.RetainedBackup(
                id=verdict.manifest.id,
                component=verdict.manifest.component,
                begun=verdict.manifest.begun,
                bytes_stored=verdict.manifest.stored_size,
                keep=bool(verdict.kept),
                reasons=tuple(verdict.kept),
                held=self.held.get(verdict.manifest.id, ""),
            )
            for verdict in self.plan.verdicts
        )
        return documents.Retention(
            applied=self.applied,
            backups=tuple(backups),
            orphans=documents.Orphans(
                uploads=len(garbage.uploads), objects=len(garbage.objects), bytes=garbage.size
            ),
            expired_wal=documents.ExpiredWal(
                objects=len(self.plan.wal), bytes=sum(one.size for one in self.plan.wal)
            ),
            hidden=self.plan.hidden,
            unread=self.plan.unread,
            locks=documents.Locks(
                until=extension.until, extended=extension.extended, refused=extension.refused
            ),
        )
