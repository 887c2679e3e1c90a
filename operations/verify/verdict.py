"""What a verification has found so far, and the evidence that it is stored as."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from archive.backup.manifest import Manifest, component_of, set_prefix
from archive.evidence.chain import next_link, read_record
from archive.evidence.verdicts import (
    Difference,
    Evidence,
    Level,
    Verdict,
    manifest_digest,
    seal_words,
    signer_of,
    write_evidence,
)
from cluster.lease import Lease
from components.base import Recovered
from operations.environment.environment import Environment
from operations.runner.stages import Stages
from operations.state.verdict_record import record
from redaction import redact

REASON, DIFFERENCES = 20_000, 1_000  # characters, entries: what is read of evidence is bounded


@dataclass
class Course(Stages):
    """The progress of a verification.

    Attributes:
        level: the highest one reached.
    """

    level: Level = ""


@dataclass
class Outcome:
    """Intermediate results.

    Attributes:
        manifest: of the backup, once it was read.
        earlier: of the backups that it depends on.
        scratch: version of the engine.
        partial: why a verification without a fault is only partial.
        messages: engine messages that are not a fault of the backup.
        differences: from the source.
        recovered: what the engine says of its recovery to a point.
    """

    manifest: Manifest | None = None
    earlier: tuple[Manifest, ...] = ()
    scratch: str = ""
    partial: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    differences: tuple[Difference, ...] = ()
    recovered: Recovered | None = None

    def facts(self, compared: bool) -> dict[str, Any]:
        """The fields of the evidence."""
        measures = self.manifest.fingerprint if self.manifest else ()
        return {
            "manifest_sha256": manifest_digest(self.manifest) if self.manifest else "",
            "chain": {manifest.id: manifest_digest(manifest) for manifest in self.earlier},
            "scratch": self.scratch,
            "differences": self.differences[:DIFFERENCES],
            "compared": len(measures) if compared else 0,
            "things": sum(measure.count for measure in measures) if compared else 0,
            "counted_only": tuple(
                f"{measure.unit}, {measure.item}"
                for measure in measures
                if (measure.count or measure.until) and not measure.digest
            ),
            "from_artefact": sum(measure.origin == "artefact" for measure in measures),
        }

    def point_facts(self) -> dict[str, Any]:
        """The fields of the evidence of a recovery to a point."""
        recovered = self.recovered
        return {
            **self.facts(compared=False),
            "compared": recovered.checked if recovered else 0,
            "counted_only": (),
            "from_artefact": 0,
            "reached": recovered.words if recovered else "",
        }


class EvidenceWriter:
    """Stores the evidence of one verification; the time runs from here on.

    Args:
        environment: opened.
        identity: the verify pool's age private key.
        backup: id of the set.
        course: of the verification.
        outcome: what it has found.
        point: that is recovered to; "" if the backup itself is verified.
    """

    def __init__(
        self,
        environment: Environment,
        identity: str,
        backup: str,
        course: Course,
        outcome: Outcome,
        point: str = "",
    ) -> None:
        self._environment, self._identity, self._backup = environment, identity, backup
        self._course, self._outcome, self._point = course, outcome, point
        self._begun, self._began = datetime.now(UTC), course.context.clock()

    def write(
        self,
        lease: Lease,
        verdict: Verdict,
        reason: str = "",
        *,
        failed_at: Level = "",
        message: str = "",
    ) -> Evidence:
        """Store the evidence with the backup, and its number on the Lease.

        Args:
            lease: of the component's verifications.
            verdict: on the backup.
            reason: why it is not a pass.
            failed_at: level that detected a fault.
            message: of the engine or its tools; may quote data, so it is stored encrypted.

        Raises:
            TemporaryError, PermanentError: the store does not take it.
        """
        environment, backup, course = self._environment, self._backup, self._course
        name, component = environment.settings.environment, component_of(backup)
        prefix = set_prefix(name, component, backup)
        # the numbers are those of the verdicts on the backup itself
        number, previous = (0, "") if self._point else self._link(lease)
        facts = (
            self._outcome.point_facts()
            if self._point
            else self._outcome.facts("compare" in course.seconds)
        )
        evidence = Evidence(
            set=backup,
            component=component,
            environment=name,
            number=number,
            previous=previous,
            verdict=verdict,
            level=course.level,
            failed_at=failed_at,
            reason=redact(reason)[:REASON],
            words=self._sealed(prefix, message),
            begun=self._begun,
            seconds=round(course.context.clock() - self._began, 2),
            stages=course.seconds,
            point=self._point,
            **facts,
        )
        write_evidence(environment.store, prefix, evidence, self._identity)
        if not self._point:
            record(lease, backup, number)
        return evidence

    def _link(self, lease: Lease) -> tuple[int, str]:
        """Return the number of the evidence, and the hash of the one before."""
        settings, store = self._environment.settings, self._environment.store
        signers = {*settings.verify.signers, signer_of(self._identity)}
        last = read_record(lease.previous_operation).number(self._backup) or 0
        return next_link(store, settings.environment, self._backup, signers, last)

    def _sealed(self, prefix: str, message: str) -> str:
        """Store a message for those who can read the backup; returns its key, "" without one."""
        manifest = self._outcome.manifest
        if not message or manifest is None:
            return ""
        store = self._environment.store
        return seal_words(store, prefix, self._begun, message, manifest.recipients)
