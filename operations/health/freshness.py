"""The age of the last backup and of the last passed verification of each component, for people, events and Prometheus.

*never*: no restore was verified yet; *failing*: the last verdict is a fail; *stale*: the last pass is older than
`verify.stale_days`; *fresh* otherwise. An error is not a verdict, so a component whose verifications end in errors
becomes stale. The newest complete backup is measured against the recovery point objective, and the duration of the last
passed verification against the recovery time objective (`objectives`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from archive.catalogue.chain import nightly
from archive.catalogue.listing import Catalogue
from archive.evidence.verdicts import Evidence, Proof, read_evidence, stored_evidence
from components import SETS
from config.models import Settings
from config.sections.objectives import Objective
from config.text.prometheus import gauges
from errors import IsaError
from operations.documents.backups import ComponentProof
from operations.environment.environment import Environment

NEVER, FAILING, STALE, FRESH = "never", "failing", "stale", "fresh"
PREFIX = "isa_cloud"


@dataclass(frozen=True)
class Limits:
    """What a component is measured against.

    Attributes:
        stale_seconds: age of the last pass from which on it is stale.
        objective: of its recovery.
    """

    stale_seconds: float
    objective: Objective = field(default_factory=Objective)

    @classmethod
    def of(cls, settings: Settings, component: str) -> Limits:
        """The limits that an environment sets for a component."""
        days = timedelta(days=settings.verify.stale_days)
        return cls(days.total_seconds(), settings.objectives.of(component))


@dataclass(frozen=True)
class Freshness:
    """One component.

    Attributes:
        component: its name.
        state: never, failing, stale or fresh.
        backup: start of the newest complete backup.
        stored: bytes in the store of the newest complete nightly one.
        proof: the last verdict's document; None if there is none.
        passed: time of the last pass.
        evidence: the last pass's document, where it could be read.
        limits: what it is measured against; None if it was not measured.
        missed: objectives that are not met, for people.
    """

    component: str
    state: str
    backup: datetime | None = None
    stored: int = 0
    proof: Proof | None = None
    passed: datetime | None = None
    evidence: Evidence | None = None
    limits: Limits | None = None
    missed: tuple[str, ...] = ()

    def document(self) -> ComponentProof:
        """As `isa proofs --json` prints it."""
        return ComponentProof(
            component=self.component,
            state=self.state,
            last_success_backup=self.backup,
            bytes_stored=self.stored,
            last_verdict=self.proof.verdict if self.proof else "",
            last_passing_verify=self.passed,
            verify_seconds=self.evidence.seconds if self.evidence else None,
            level=self.evidence.level if self.evidence else "",
            backup=self.evidence.set if self.evidence else "",
            sentence=self.sentence,
            rpo_seconds=self.limits.objective.rpo_seconds if self.limits else None,
            rto_seconds=self.limits.objective.rto_seconds if self.limits else None,
            missed=self.missed,
        )

    @property
    def sentence(self) -> str:
        """The last pass in one sentence; "" if that is not known."""
        return self.evidence.sentence if self.evidence else ""


def read_freshness(
    environment: Environment, components: Iterable[str] = ()
) -> tuple[Freshness, ...]:
    """Return how recent each component's verification is.

    Raises:
        TemporaryError, PermanentError: the store cannot be listed.
    """
    names = tuple(components) or tuple(SETS)
    catalogue = environment.catalogue(names)
    now, read = datetime.now(UTC), documents(environment)
    return tuple(
        judge(catalogue, name, Limits.of(environment.settings, name), now, read) for name in names
    )


def documents(environment: Environment) -> Callable[[Proof], Evidence | None]:
    """Reads a proof's document; None where retention was quicker, or it does not count: who wrote it may not."""

    def read(proof: Proof) -> Evidence | None:
        try:
            signers = environment.settings.verify.signers
            return read_evidence(stored_evidence(environment.store, proof.key), proof.key, signers)
        except IsaError:
            return None

    return read


def judge(
    catalogue: Catalogue,
    component: str,
    limits: Limits,
    now: datetime,
    read: Callable[[Proof], Evidence | None],
) -> Freshness:
    """Return how recent a component's verification is.

    Args:
        catalogue: its sets and proofs.
        component: name.
        limits: what it is measured against.
        now: the present.
        read: returns a verdict's document; None if it is not trustworthy.
    """
    complete = [manifest for manifest in catalogue.of(component) if manifest.outcome == "complete"]
    proofs = [proof for proof, _ in catalogue.proofs_of(component) if proof.told]
    passes = [proof for proof in proofs if proof.verdict == "pass"]
    evidence = read(passes[-1]) if passes else None
    passed = passes[-1].at if evidence is not None else None
    state = FRESH
    if proofs and proofs[-1].verdict == "fail":
        state = FAILING
    elif passed is None:
        state = NEVER
    elif (now - passed).total_seconds() > limits.stale_seconds:
        state = STALE
    backup = complete[-1].begun if complete else None
    return Freshness(
        component,
        state,
        backup,
        nightly(complete)[-1].stored_size if complete else 0,
        proofs[-1] if proofs else None,
        passed,
        evidence,
        limits,
        tuple(_missed(limits.objective, backup, evidence, now)),
    )


def _missed(
    objective: Objective, backup: datetime | None, evidence: Evidence | None, now: datetime
) -> Iterator[str]:
    """Objectives that are not met, for people."""
    if backup is None:
        yield "no complete backup"
    elif (age := (now - backup).total_seconds()) > objective.rpo_seconds:
        yield f"the newest complete backup is {span(age)} old, its objective is {span(objective.rpo_seconds)}"
    if evidence is not None and evidence.seconds > objective.rto_seconds:
        took, limit = span(evidence.seconds), span(objective.rto_seconds)
        yield f"the last verified restore took {took}, its objective is {limit}"


def span(seconds: float) -> str:
    """A length of time, for people: the two largest units."""
    parts, rest = list[str](), round(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def metrics(components: Iterable[Freshness], environment: str) -> str:
    """The same in Prometheus' text format (version 0.0.4), for node-exporter's directory or a Pushgateway."""
    table = tuple(components)
    families: tuple[tuple[str, str, Callable[[Freshness], float | None]], ...] = (
        ("last_success_backup_timestamp_seconds", "Start of the newest complete backup.",
         lambda f: f.backup.timestamp() if f.backup else None),
        ("last_backup_stored_bytes", "Bytes of the newest complete nightly backup in the object store.",
         lambda f: f.stored if f.backup else None),
        ("last_passing_verify_timestamp_seconds", "Time of the last passed verification.",
         lambda f: f.passed.timestamp() if f.passed else None),
        ("verify_seconds", "Duration of that verification: restore and comparison.",
         lambda f: f.evidence.seconds if f.evidence else None),
        ("verify_failing", "1 if the last verdict is a fail.",
         lambda f: float(f.state == FAILING)),
        ("verify_never", "1 if no restore was ever verified.",
         lambda f: float(f.state == NEVER)),
        ("recovery_point_objective_seconds", "Greatest age of the newest complete backup.",
         lambda f: f.limits.objective.rpo_seconds if f.limits else None),
        ("recovery_time_objective_seconds", "Greatest duration of a verified restore.",
         lambda f: f.limits.objective.rto_seconds if f.limits else None),
        ("verify_stale_seconds", "Age from which on the last passed verification is stale.",
         lambda f: f.limits.stale_seconds if f.limits else None),
    )  # fmt: skip
    return gauges(
        (
            f"{PREFIX}_{name}",
            help_text,
            [
                ({"environment": environment, "component": row.component}, value(row))
                for row in table
            ],
        )
        for name, help_text, value in families
    )
