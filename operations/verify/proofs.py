"""Verifies several backups: selects those that are due, runs a few at the same time, and reports each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from archive.backup.manifest import IDENTITY, component_of
from archive.catalogue.listing import Catalogue
from archive.evidence.verdicts import Evidence
from archive.wal.names import COMPONENT
from cluster.command import Cancelled
from cluster.dag import Dag
from errors import ArgumentError, Fault, IsaError
from operations.backup.component import selected
from operations.documents.runs import BackupProof, Verify
from operations.environment.environment import Environment
from operations.runner.context import RunContext
from operations.runner.lines import run_lines
from operations.runner.progress import NodeProgress, Progress
from operations.runner.walk import Start, Work
from operations.verify.point import (
    AT,
    nightly_points,
    point_of,
    prove_point,
    target_of,
    verification_of,
)
from operations.verify.proof import prove

RUNNING, ERROR = "proving", "error"


@dataclass(frozen=True)
class ProofLine(NodeProgress):
    """One line of the table; with the results when there is a verdict.

    Attributes:
        level: the highest one reached.
        compared: measures.
        scratch: engine that it was restored into.
    """

    level: str = ""
    compared: int = 0
    scratch: str = ""


@dataclass(frozen=True)
class ProofResult:
    """How one verification ended.

    Attributes:
        backup: id of the set; with the point behind it, if that was verified.
        component: of the backup.
        verdict: pass, partial, fail or error.
        level: the highest one reached.
        compared: measures.
        seconds: wall time.
        reason: why it is not a pass; the result in one line, if it is one.
        scratch: engine that it was restored into.
    """

    backup: str
    component: str
    verdict: str
    level: str = ""
    compared: int = 0
    seconds: float = 0.0
    reason: str = ""
    scratch: str = ""

    def document(self) -> BackupProof:
        """As `isa verify --json` prints it."""
        return BackupProof(**{**vars(self), "seconds": round(self.seconds, 2)})


@dataclass(frozen=True)
class ProofReport:
    """How a run of verifications ended.

    Attributes:
        seconds: wall time.
        proofs: one result per backup.
    """

    seconds: float
    proofs: tuple[ProofResult, ...]

    @property
    def state(self) -> str:
        """`completed`, or `failed` if a backup failed or has no verdict."""
        good = all(proof.verdict in ("pass", "partial") for proof in self.proofs)
        return "completed" if good else "failed"

    @property
    def summary(self) -> str:
        """One line: the number of each outcome, and every cause."""
        counts: dict[str, int] = {}
        for proof in self.proofs:
            counts[proof.verdict] = counts.get(proof.verdict, 0) + 1
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        causes = "; ".join(
            f"{proof.backup}: {proof.reason}"
            for proof in self.proofs
            if proof.verdict in ("fail", ERROR)
        )
        summary = f"{verdicts or 'nothing to verify'} in {self.seconds:.1f} s"
        return f"{summary}. {causes}" if causes else summary

    def document(self) -> Verify:
        """The report as `isa verify --json` prints it."""
        return Verify(
            state=self.state,
            seconds=round(self.seconds, 2),
            message=self.summary,
            proofs=tuple(proof.document() for proof in self.proofs),
        )


def latest(catalogue: Catalogue, components: Iterable[str]) -> tuple[str, ...]:
    """The newest readable backup of each component, and the newest damaged one if that is newer.

    Both, because anyone with write access to the bucket can store a damaged one after the last good one. Ids sort by
    time. Backups between two nightly ones count only where there are no others.
    """
    readable = {manifest.id for manifest in catalogue.sets}
    between = _between(catalogue)
    newest: dict[tuple[str, bool], str] = {}
    for identity in sorted(set(everything(catalogue)) - between):
        newest[component_of(identity), identity in readable] = identity
    backups: list[str] = []
    for name in components:
        good, damaged = newest.get((name, True), ""), newest.get((name, False), "")
        backups += [identity for identity in (good, damaged if damaged > good else "") if identity]
    return tuple(backups)


def due(catalogue: Catalogue, components: Iterable[str]) -> tuple[str, ...]:
    """The newest backup of each component, if it has no verdict yet."""
    newest = latest(catalogue, components)
    return tuple(identity for identity in newest if not catalogue.verdict(identity))


def everything(catalogue: Catalogue) -> tuple[str, ...]:
    """All backups, including damaged ones."""
    broken = (key.split("/")[-2] for key in catalogue.broken)
    return tuple(sorted([*(manifest.id for manifest in catalogue.sets), *broken]))


def sample(catalogue: Catalogue, components: Iterable[str], seed: str) -> tuple[str, ...]:
    """An older backup of each component, chosen by the seed; a damaged one if no other can be read.

    Of those between two nightly ones only the last is a candidate: they are many, and alike.

    Args:
        catalogue: of the backups.
        components: names.
        seed: for instance the week.
    """
    names = tuple(components)
    newest = set(latest(catalogue, names))
    readable = {manifest.id for manifest in catalogue.sets}
    between = _between(catalogue)
    last_between = {component_of(identity): identity for identity in sorted(between)}
    older: dict[tuple[str, bool], list[str]] = {}
    for identity in everything(catalogue):
        if identity not in newest and (
            identity not in between or identity in last_between.values()
        ):
            older.setdefault((component_of(identity), identity in readable), []).append(identity)
    choices = {name: older.get((name, True)) or older.get((name, False)) for name in names}
    return tuple(
        random.Random(f"{seed} {name}").choice(ids) for name, ids in choices.items() if ids
    )


def choose(
    environment: Environment,
    backups: Iterable[str],
    components: Iterable[str],
    which: str,
    seed: str = "",
    at: str = "",
) -> tuple[str, ...]:
    """Choose the backups to verify, by id.

    Args:
        environment: opened.
        backups: ids; if any are given, these.
        components: else of these; all if empty.
        which: latest, due, all or sample.
        seed: of the sample.
        at: if given, only this point between two backups is verified (`operations.verify.point`).

    Raises:
        ArgumentError: an id or a component is unknown, or the point is no time and no LSN.
        NotCovered: the point is not covered.
    """
    named = tuple(backups)
    if at:
        target = target_of(at, (*components, *named))
        return (verification_of(point_of(environment, target)),)
    invalid = [identity for identity in named if not IDENTITY.fullmatch(identity)]
    if invalid:
        hint = "`isa backups` lists them"
        raise ArgumentError(
            [Fault("backup", f"{identity!r} is not a backup id", hint) for identity in invalid]
        )
    if named:
        return tuple(dict.fromkeys(named))
    names = selected(components)
    catalogue = environment.catalogue(names)
    if which == "all":
        return everything(catalogue)
    if which == "sample":
        return sample(catalogue, names, seed)
    chosen = due(catalogue, names) if which == "due" else latest(catalogue, names)
    if all(component_of(identity) != COMPONENT for identity in chosen):
        return chosen
    return (*chosen, *nightly_points(environment, catalogue, random.SystemRandom()))


def week(now: datetime | None = None) -> str:
    """The week, as the seed of its sample: `2026-W48`."""
    year, number, _ = (now or datetime.now(UTC)).isocalendar()
    return f"{year}-W{number:02d}"


def run_proofs(
    environment: Environment,
    context: RunContext,
    backups: Iterable[str],
    *,
    start: Callable[[Dag, Work], Start],
) -> ProofReport:
    """Verify backups: components in parallel, the backups of one component one after the other.

    Args:
        environment: opened.
        context: of the run.
        backups: ids.
        start: how a component is begun (a thread, a Prefect task); one that raises a temporary error may be begun
            again.

    Raises:
        PermanentError: the verify pool's key does not exist.
    """
    began = context.clock()
    identity = environment.verify_identity()
    identities = tuple(backups)
    queues: dict[str, list[str]] = {}
    for backup in identities:
        queues.setdefault(component_of(backup), []).append(backup)
    progress = Progress(identities, context.publish, context.clock, ProofLine)

    def work(context: RunContext, backup: str) -> ProofResult:
        try:
            verify = prove_point if AT in backup else prove
            return _result(backup, verify(environment, context, identity, backup))
        except Cancelled:
            raise
        except IsaError as exc:
            context.tell(str(exc))
            raise

    def settle(backup: str, result: ProofResult, _: float) -> None:
        progress.ended(
            backup,
            result.verdict,
            result.seconds,
            result.reason,
            level=result.level,
            compared=result.compared,
            scratch=result.scratch,
        )

    results = run_lines(
        context,
        queues,
        work,
        phase=RUNNING,
        progress=progress,
        start=start,
        max_parallel=environment.settings.verify.max_parallel,
        lost=lambda backup, end: ProofResult(
            backup, end.name, ERROR, seconds=end.seconds, reason=end.reason
        ),
        settle=settle,
    )
    return ProofReport(context.clock() - began, tuple(results[backup] for backup in identities))


def _between(catalogue: Catalogue) -> set[str]:
    """Ids of the backups between two nightly ones, of components that have others too."""
    components = {manifest.component for manifest in catalogue.sets}
    nightly = {manifest.id for name in components for manifest in catalogue.nightly(name)}
    return {manifest.id for manifest in catalogue.sets} - nightly


def _result(name: str, evidence: Evidence) -> ProofResult:
    return ProofResult(
        backup=name,
        component=evidence.component,
        verdict=evidence.verdict,
        level=evidence.level,
        compared=evidence.compared,
        seconds=evidence.seconds,
        reason=evidence.sentence,
        scratch=evidence.scratch,
    )
