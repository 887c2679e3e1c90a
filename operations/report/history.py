"""The history of each component's backups and verifications, and its trend.

It is read from the object store: manifests and evidence outlive the Prefect server.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations

from archive.catalogue.listing import Catalogue
from archive.evidence.verdicts import Evidence, Proof
from components import SETS
from operations.documents import report as documents
from operations.environment.environment import Environment
from operations.health import freshness
from operations.health.freshness import FAILING, FRESH, Freshness, Limits

UNREADABLE = "unreadable"
DOCUMENTS = 20  # newest proofs of a component whose documents are read; of older ones the name tells time and verdict
READERS = 8
# Below these a line through the points says more about chance than about growth.
TREND_SETS = 5
TREND_SPAN = timedelta(days=2)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class BackupPoint:
    """One backup set.

    Attributes:
        id: of the set.
        begun: start of the run.
        seconds: that it took.
        bytes_read: plain bytes.
        bytes_stored: bytes in the bucket.
        kind: full or incremental.
        outcome: complete or partial.
    """

    id: str
    begun: datetime
    seconds: float
    bytes_read: int
    bytes_stored: int
    kind: str
    outcome: str


@dataclass(frozen=True)
class ProofPoint:
    """One proof.

    Attributes:
        backup: id of the backup that was restored.
        begun: start of the proof.
        verdict: pass, partial, fail or error; unreadable if its document is not trustworthy.
        level: highest level that passed; "" if none, or its document was not read.
        seconds: that it took; None if its document was not read.
        sentence: what it found.
    """

    backup: str
    begun: datetime
    verdict: str
    level: str = ""
    seconds: float | None = None
    sentence: str = ""


@dataclass(frozen=True)
class Trend:
    """A straight line through points.

    Attributes:
        begun: time of its first point.
        ended: time of its last one.
        first: its value there.
        last: its value there.
        weekly: change in a week, as a share of the median.
    """

    begun: datetime
    ended: datetime
    first: float
    last: float
    weekly: float


@dataclass(frozen=True)
class ComponentHistory:
    """One component.

    Attributes:
        freshness: how old its last proof is.
        backups: its sets, the oldest first.
        proofs: its proofs, the oldest first.
        made: when this was read.
    """

    freshness: Freshness
    backups: tuple[BackupPoint, ...]
    proofs: tuple[ProofPoint, ...]
    made: datetime

    @property
    def component(self) -> str:
        """Its name."""
        return self.freshness.component

    @property
    def headline(self) -> str:
        """One sentence for the engineer on call: whether it can be restored, and by which verification."""
        fresh = self.freshness
        sentence = "no restore was ever verified"
        if fresh.passed is not None and fresh.evidence is not None:
            proof = fresh.evidence
            sentence = (
                f"restore verified on {fresh.passed:%Y-%m-%d} ({proof.level}): {proof.compared} checks match over "
                f"{proof.things:,} objects, {proof.seconds:.0f} s"
            )
        judged = [point for point in self.proofs if point.verdict != "error"]
        if fresh.state == FAILING:
            last = f"the last verification did not pass on {judged[-1].begun:%Y-%m-%d}, {judged[-1].sentence}"
            sentence = f"{last}. Before: {sentence}"
        elif fresh.passed is None and judged:
            sentence += f". The last attempt, {judged[-1].begun:%Y-%m-%d}: {judged[-1].sentence}"
        elif fresh.passed is not None and fresh.state != FRESH:
            sentence += f". That is {(self.made - fresh.passed).days} days ago"
        errors = len(self.proofs) - (self.proofs.index(judged[-1]) + 1 if judged else 0)
        if errors:
            sentence += f". Since then {errors} ended in an error, without a verdict"
        if not fresh.backup:
            return f"there is no complete backup, and {sentence}"
        return "; ".join((sentence, *fresh.missed))

    def trend(self, value: Callable[[BackupPoint], float]) -> Trend | None:
        """The trend of a figure of its full backups; None if there are too few.

        Args:
            value: the figure. Incremental and partial backups do not count: they measure something else.
        """
        full = [
            point for point in self.backups if (point.kind, point.outcome) == ("full", "complete")
        ]
        return trend([(point.begun, value(point)) for point in full])

    @property
    def growth(self) -> str:
        """The trend of sizes and durations of its backups, as text."""
        stored, seconds = self.trend(lambda b: b.bytes_stored), self.trend(lambda b: b.seconds)
        if stored is None or seconds is None:
            return "too few full backups over too few days for a trend"
        return f"stored {stored.weekly:+.1%} a week, duration {seconds.weekly:+.1%} a week"

    def document(self) -> documents.ReportedComponent:
        """As `isa report --json` prints it."""
        stored, seconds = self.trend(lambda b: b.bytes_stored), self.trend(lambda b: b.seconds)
        return documents.ReportedComponent(
            component=self.component,
            state=self.freshness.state,
            headline=self.headline,
            last_success_backup=self.freshness.backup,
            last_passing_verify=self.freshness.passed,
            weekly_trend=documents.WeeklyTrend(
                bytes_stored=stored.weekly if stored else None,
                seconds=seconds.weekly if seconds else None,
            ),
            backups=tuple(documents.ReportedBackup(**vars(point)) for point in self.backups),
            proofs=tuple(documents.ReportedProof(**vars(point)) for point in self.proofs),
        )


def read_history(
    environment: Environment, components: Iterable[str] = ()
) -> tuple[ComponentHistory, ...]:
    """Read the history of each component.

    Raises:
        TemporaryError, PermanentError: the store cannot be listed.
    """
    names = tuple(components) or tuple(SETS)
    catalogue = environment.catalogue(names)
    settings = environment.settings
    now, read = datetime.now(UTC), freshness.documents(environment)
    with ThreadPoolExecutor(READERS) as pool:
        return tuple(
            pool.map(
                lambda name: history(catalogue, name, Limits.of(settings, name), now, read), names
            )
        )


def history(
    catalogue: Catalogue,
    component: str,
    limits: Limits,
    now: datetime,
    read: Callable[[Proof], Evidence | None],
) -> ComponentHistory:
    """The history of one component.

    Args:
        catalogue: its sets and proofs.
        component: name.
        limits: what it is measured against.
        now: the present.
        read: returns a verdict's document; None if it is not trustworthy.
    """
    proofs = catalogue.proofs_of(component)
    newest = {proof: read(proof) for proof, _ in proofs[-DOCUMENTS:]}
    return ComponentHistory(
        freshness.judge(
            catalogue, component, limits, now, lambda p: newest[p] if p in newest else read(p)
        ),
        tuple(
            BackupPoint(
                id=manifest.id,
                begun=manifest.begun,
                seconds=round(manifest.seconds, 2),
                bytes_read=manifest.plain_size,
                bytes_stored=manifest.stored_size,
                kind=manifest.kind,
                outcome=manifest.outcome,
            )
            for manifest in catalogue.nightly(component)
        ),
        tuple(
            _proof(proof, identity, newest[proof])
            if proof in newest
            else ProofPoint(identity, proof.at, proof.verdict)
            for proof, identity in proofs
        ),
        now,
    )


def trend(points: Sequence[tuple[datetime, float]]) -> Trend | None:
    """A line by the median of all slopes (Theil-Sen), so that one odd night does not bend it.

    Args:
        points: time and value, the oldest first.

    Returns:
        The line; None where the points are too few, or too close to each other in time.
    """
    if len(points) < TREND_SETS or points[-1][0] - points[0][0] < TREND_SPAN:
        return None
    days = [((at - points[0][0]) / DAY, value) for at, value in points]
    slopes = [(b - a) / (y - x) for (x, a), (y, b) in combinations(days, 2) if y > x]
    slope = statistics.median(slopes)
    first = statistics.median(value - slope * day for day, value in days)
    middle = statistics.median(value for _, value in days)
    return Trend(
        begun=points[0][0],
        ended=points[-1][0],
        first=first,
        last=first + slope * days[-1][0],
        weekly=7 * slope / middle if middle else 0.0,
    )


def _proof(proof: Proof, identity: str, document: Evidence | None) -> ProofPoint:
    if document is None:
        reason = "its verdict is missing, or not signed by a key in verify.signers"
        return ProofPoint(identity, proof.at, UNREADABLE, sentence=reason)
    return ProofPoint(
        identity, proof.at, document.verdict, document.level, document.seconds, document.sentence
    )
