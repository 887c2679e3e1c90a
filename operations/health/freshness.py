"""The age of the last backup and of the last passed verification of each component, for people, events and Prometheus.

*never*: no restore was verified yet; *failing*: the last verdict is a fail; *stale*: the last pass is older than
`verify.stale_days`; *fresh* otherwise. An error is not a verdict, so a component whose verifications end in errors
becomes stale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from archive.catalogue.listing import Catalogue
from archive.evidence.verdicts import Evidence, Proof, read_evidence, stored_evidence
from components import SETS
from config.text.printable import visible
from errors import IsaError
from operations.documents.backups import ComponentProof
from operations.environment.environment import Environment

NEVER, FAILING, STALE, FRESH = "never", "failing", "stale", "fresh"
PREFIX = "isa_cloud"


@dataclass(frozen=True)
class Freshness:
    """One component.

    Attributes:
        component: its name.
        state: never, failing, stale or fresh.
        backup: start of the newest complete backup.
        stored: its bytes in the store.
        proof: the last verdict's document; None if there is none.
        passed: time of the last pass.
        evidence: the last pass's document, where it could be read.
    """

    component: str
    state: str
    backup: datetime | None = None
    stored: int = 0
    proof: Proof | None = None
    passed: datetime | None = None
    evidence: Evidence | None = None

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
    after = timedelta(days=environment.settings.verify.stale_days)
    now, read = datetime.now(UTC), documents(environment)
    return tuple(judge(catalogue, name, after, now, read) for name in names)


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
    after: timedelta,
    now: datetime,
    read: Callable[[Proof], Evidence | None],
) -> Freshness:
    """Return how recent a component's verification is.

    Args:
        catalogue: its sets and proofs.
        component: name.
        after: age of the last pass from which on it is stale.
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
    elif now - passed > after:
        state = STALE
    return Freshness(
        component,
        state,
        complete[-1].begun if complete else None,
        complete[-1].stored_size if complete else 0,
        proofs[-1] if proofs else None,
        passed,
        evidence,
    )


def metrics(components: Iterable[Freshness], environment: str) -> str:
    """The same in Prometheus' text format (version 0.0.4), for node-exporter's directory or a Pushgateway."""
    table = tuple(components)
    families: tuple[tuple[str, str, Callable[[Freshness], float | None]], ...] = (
        ("last_success_backup_timestamp_seconds", "Start of the newest complete backup.",
         lambda f: f.backup.timestamp() if f.backup else None),
        ("last_backup_stored_bytes", "Bytes of that backup in the object store.",
         lambda f: f.stored if f.backup else None),
        ("last_passing_verify_timestamp_seconds", "Time of the last passed verification.",
         lambda f: f.passed.timestamp() if f.passed else None),
        ("verify_seconds", "Duration of that verification: restore and comparison.",
         lambda f: f.evidence.seconds if f.evidence else None),
        ("verify_failing", "1 if the last verdict is a fail.",
         lambda f: float(f.state == FAILING)),
        ("verify_never", "1 if no restore was ever verified.",
         lambda f: float(f.state == NEVER)),
    )  # fmt: skip
    lines = []
    for name, help_text, value in families:
        lines += [f"# HELP {PREFIX}_{name} {help_text}", f"# TYPE {PREFIX}_{name} gauge"]
        for row in table:
            number = value(row)
            if number is not None:
                labels = f'environment="{_label(environment)}",component="{_label(row.component)}"'
                lines.append(f"{PREFIX}_{name}{{{labels}}} {number:.3f}")
    return "\n".join(lines) + "\n"


def _label(value: str) -> str:
    """A label's value, which ends neither its quotes nor its line (text format 0.0.4)."""
    return visible(value).replace("\\", "\\\\").replace('"', '\\"')
