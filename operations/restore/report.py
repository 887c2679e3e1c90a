"""How restores ended, as data and as text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from archive.evidence.verdicts import Difference
from operations.documents import runs as documents
from operations.documents.runs import ComponentRestore, Restore
from operations.runner.progress import NodeProgress

RUNNING, FAILED, RESTORED, DIFFERENT = "restoring", "failed", "restored", "different"
BY_HAND = "by-hand"  # nothing was done, and somebody has to


@dataclass(frozen=True)
class RestoreLine(NodeProgress):
    """One line of the table.

    Attributes:
        backup: id of the set.
        safety: id of the safety backup.
    """

    backup: str = ""
    safety: str = ""


@dataclass
class RestoreReport:
    """How a restore ended.

    Attributes:
        backup: id of the set.
        component: of it.
        outcome: restored, different, failed or by-hand.
        safety: id of the safety backup; "" if there was no data.
        first: id of the safety backup of the first attempt, if this run continues an
            interrupted one; "" if that one took none, None if this is the first.
        kept: what is kept of the old data, for people.
        not_replaced: units not replaced, because the safety backup could not restore them → why.
        differences: between the backup and the live data.
        stages: seconds of each part.
        reason: why the outcome is not `restored`.
    """

    backup: str
    component: str
    outcome: str = FAILED
    safety: str = ""
    first: str | None = None
    kept: list[str] = field(default_factory=list)
    not_replaced: dict[str, str] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    stages: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def seconds(self) -> float:
        """Wall time."""
        return round(sum(self.stages.values()), 2)

    def document(self) -> ComponentRestore:
        """As `isa restore --json` prints it."""
        return ComponentRestore(
            backup=self.backup,
            component=self.component,
            outcome=self.outcome,
            safety_backup=self.safety,
            kept=tuple(self.kept),
            not_replaced=self.not_replaced,
            differences=tuple(
                documents.Difference(
                    unit=difference.unit, item=difference.item, what=difference.what
                )
                for difference in self.differences
            ),
            stages=self.stages,
            seconds=self.seconds,
            reason=self.reason,
        )


def document(reports: Iterable[RestoreReport], seconds: float) -> Restore:
    """Reports as `isa restore --json` prints them."""
    rows = list(reports)
    return Restore(
        state="completed" if all(r.outcome == RESTORED for r in rows) else "failed",
        seconds=round(seconds, 2),
        message=open_ends(rows) or f"{len(rows)} restored in {seconds:.1f} s",
        restores=tuple(report.document() for report in rows),
    )


def open_ends(reports: Iterable[RestoreReport]) -> str:
    """What failed, and what a person still has to do; "" if everything is restored."""
    rows = list(reports)
    failures = [f"{r.component}: {r.reason}" for r in rows if r.reason and r.outcome != BY_HAND]
    failures += [
        f"{r.component} still has to be restored, from {r.backup}: {r.reason}"
        for r in rows
        if r.outcome == BY_HAND
    ]
    restored = sum(r.outcome == RESTORED for r in rows)
    return "; ".join([f"{restored} of {len(rows)} restored", *failures]) if failures else ""


def way_back(report: RestoreReport) -> str:
    """Return how to restore the previous data; a safety backup of half-replaced data does not count."""
    if report.first == "":
        return "The first attempt took no safety backup: run the same command again to continue"
    backup = report.first or report.safety
    if not backup:
        return "There was no data before: run the same command again to start over"
    return f"The previous data is in {backup}: `isa restore {backup}`"
