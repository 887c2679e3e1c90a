"""Verifies one backup: restores it into scratch engines, and compares it with what the source held.

Levels: L0 the manifest and its objects exist; L1 every byte is what was stored; L2 the engine's own tools accept
it; L3 an engine serves it; L4 it matches the fingerprint. A verdict is about the backup; a problem that prevents
a verdict is an *error*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyrage

from archive.check import look
from archive.evidence import (
    Difference,
    Evidence,
    Level,
    Verdict,
    manifest_digest,
    seal_words,
    signer_of,
    write_evidence,
)
from archive.evidence_chain import next_link, read_record
from archive.manifest import IDENTITY, Manifest, Measure, set_prefix
from archive.reader import Damaged, SetReader
from archive.store import Refused
from archive.unpacking import Unreadable
from cluster.command import Cancelled
from cluster.credentials import password
from components.base import Restore, Scratch
from errors import IsaError, PermanentError, TemporaryError
from operations.environment.environment import Environment
from operations.environment.leases import verify_lease
from operations.runner.context import RunContext
from operations.runner.stages import Stages
from operations.runner.transfer import Transfer, watched
from operations.state.verdict_record import record
from operations.verify.comparison import compare, told
from operations.verify.compatibility import incompatibility, version_mismatch
from operations.verify.scratch import Unrestorable, engines, out_of_room
from operations.verify.scratch_pod import Request
from redaction import redact

REASON, DIFFERENCES = 20_000, 1_000  # characters, entries: what is read of evidence is bounded


@dataclass
class Course(Stages):
    """The progress of a verification.

    Attributes:
        level: the highest one reached.
    """

    level: Level = ""


class Rejected(PermanentError):
    """The backup does not match its fingerprint, or cannot be restored.

    Attributes:
        level: that detected it.
        differences: from the source; empty below L4.
    """

    def __init__(
        self, level: Level, message: str, differences: Iterable[Difference] = (), said: str = ""
    ) -> None:
        super().__init__(message, said=said)
        self.level: Level = level
        self.differences = tuple(differences)


def prove(environment: Environment, context: RunContext, identity: str, backup: str) -> Evidence:
    """Verify one backup, and store the evidence with it.

    Args:
        environment: opened.
        context: of the run.
        identity: the verify pool's age private key.
        backup: id of the set.

    Raises:
        LeaseHeld: another verification of this component is running.
        TemporaryError, PermanentError: no verdict was possible, for reasons outside the backup.
    """
    match = IDENTITY.fullmatch(backup)
    if match is None or match["component"] not in environment.backup_targets:
        raise PermanentError(f"{backup!r} is not a backup id: `isa backups` lists them")
    component = match["component"]
    course, outcome, begun = Course(context), Outcome(), datetime.now(UTC)
    began = context.clock()

    def keep(verdict: Verdict, reason: str = "", failed_at: Level = "", said: str = "") -> Evidence:
        name = environment.settings.environment
        prefix = set_prefix(name, component, backup)
        words = ""
        if said and outcome.manifest:
            readers = outcome.manifest.recipients
            words = seal_words(environment.store, prefix, begun, said, readers)
        signers = {*environment.settings.verify.signers, signer_of(identity)}
        last = read_record(lease.previous_operation).number(backup) or 0
        number, previous = next_link(environment.store, name, backup, signers, last)
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
            words=words,
            begun=begun,
            seconds=round(context.clock() - began, 2),
            stages=course.seconds,
            **outcome.facts("compare" in course.seconds),
        )
        write_evidence(environment.store, prefix, evidence, identity)
        record(lease, backup, number)
        return evidence

    with environment.lease(verify_lease(component), context.who) as lease:
        try:
            _prove(environment, identity, backup, course, outcome)
        except Rejected as exc:
            outcome.differences = exc.differences
            return keep("fail", exc.plain, exc.level, exc.said)
        except IsaError as exc:
            if context.cancellation.is_set():
                raise Cancelled("cancelled before there was a verdict") from exc
            with suppress(IsaError):  # it may be the store that is away
                keep("error", exc.plain, said=exc.said)
            exc.args = (exc.plain,)  # on its way into Prefect's database
            raise
        reason = "; ".join(outcome.partly)
        return keep("partial" if reason else "pass", reason, said="\n".join(outcome.said))


@dataclass
class Outcome:
    """Intermediate results.

    Attributes:
        manifest: of the backup, once it was read.
        earlier: of the backups that it depends on.
        scratch: version of the engine.
        partly: why a verification without a fault is only partial.
        said: engine messages that are not a fault of the backup.
        differences: from the source.
    """

    manifest: Manifest | None = None
    earlier: tuple[Manifest, ...] = ()
    scratch: str = ""
    partly: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    differences: tuple[Difference, ...] = ()

    def facts(self, compared: bool) -> dict[str, Any]:
        """The fields of the evidence."""
        measures = self.manifest.fingerprint if self.manifest else ()
        return {
            "manifest_sha256": manifest_digest(self.manifest) if self.manifest else "",
            "chain": {one.id: manifest_digest(one) for one in self.earlier},
            "scratch": self.scratch,
            "compared": len(measures) if compared else 0,
            "things": sum(one.count for one in measures) if compared else 0,
            "counted_only": tuple(
                f"{one.unit}, {one.item}"
                for one in measures
                if (one.count or one.until) and not one.digest
            ),
            "from_artefact": sum(one.origin == "artefact" for one in measures),
            "differences": self.differences[:DIFFERENCES],
        }


# ---------------------------------------------------------------------- inside
def _prove(
    environment: Environment, identity: str, backup: str, course: Course, outcome: Outcome
) -> None:
    with course.stage("manifest"):
        manifest, earlier = _manifests(environment, backup)
        outcome.manifest, outcome.earlier = manifest, earlier
        _look(environment, identity, manifest, earlier)
    course.level = "L0"
    restore = environment.backup_targets[manifest.component].restore
    transfer = Transfer(course.context.tell)
    reader = SetReader(
        environment.store, manifest, identity, earlier, watched(transfer, manifest.component)
    )
    settings, kube = environment.settings, environment.kube
    request = Request(settings, kube, reader.chain, environment.store_credentials(), identity)
    wanted = restore.scratch(settings, manifest, password())
    try:
        found = _Trial(request, reader, restore, course, outcome).run(wanted)
    except Damaged as exc:
        raise Rejected("L1", exc.plain, said=exc.said) from exc
    except Unrestorable as exc:
        raise Rejected(exc.level, exc.plain, said=exc.said) from exc
    if manifest.missing:
        outcome.partly.append(f"the backup itself is partial: {'; '.join(manifest.missing)}")
    if found is None:
        return
    differences, other = (
        compare(reader.manifest.fingerprint, found),
        version_mismatch(manifest, outcome.scratch),
    )
    if differences and not other:
        raise Rejected("L4", told(differences), differences)
    outcome.differences = differences
    if differences:
        other = f"{other}, which may cause these differences: {told(differences)}"
    else:
        course.level = restore.highest
    if other:
        outcome.partly.append(other)


@dataclass(frozen=True)
class _Trial:
    """One backup's restore into scratch engines."""

    request: Request
    reader: SetReader
    restore: Restore
    course: Course
    outcome: Outcome

    def run(self, wanted: tuple[Scratch, ...]) -> Mapping[str, list[Measure]] | None:
        """Restore what the scratch engines are compatible with; None if nothing: then every byte was read.

        Raises:
            Damaged, Unrestorable: the backup is bad.
        """
        while True:
            try:
                return self._restored(wanted)
            except Unrestorable as exc:
                self._excuse(wanted, exc)
            # files belong to a version; what comes over the network may do without
            others = tuple(one for one in wanted if not one.placed)
            if not others or others == wanted:
                break
            wanted = others
        with self.course.stage("read the remaining artefacts"):
            self.reader.read_rest()
        self.course.level = "L1"
        return None

    def _excuse(self, wanted: tuple[Scratch, ...], exc: Unrestorable) -> None:
        """Record why the engines, and not the backup, are the cause; any other error is raised again."""
        why = incompatibility(
            self.request, self.restore, wanted, exc, self.outcome.scratch, self.course.context
        )
        if not why:
            raise exc
        self.outcome.partly.append(f"{why} ({exc.plain})")
        self.outcome.said.append(exc.said)

    def _restored(self, wanted: tuple[Scratch, ...]) -> Mapping[str, list[Measure]]:
        """Restore; returns the measures of the scratch engines."""
        restore, reader, course = self.restore, self.reader, self.course
        placed = [name for one in wanted for name in one.placed]
        with ExitStack() as stack:
            with course.stage("start"):
                made = stack.enter_context(
                    engines(self.request, wanted, restore.ask, course.context)
                )
            self.outcome.scratch = made.version
            try:
                with course.stage("load"):
                    restore.load(made.access, made.at, reader)
                with course.stage("read the remaining artefacts"):
                    reader.read_rest(placed)
                course.level = "L3" if wanted else "L1"
                with course.stage("compare"):
                    found = restore.measure(made.access, made.at, reader)
            except TemporaryError:
                made.check()  # was it the engine that died?
                raise
            except (Damaged, Refused, Cancelled):
                raise
            except (PermanentError, OSError) as exc:
                if (
                    course.context.cancellation.is_set()
                ):  # what was refused may have been ended for it
                    raise Cancelled("cancelled before there was a verdict") from exc
                if out_of_room(exc):
                    raise PermanentError("a disk is full: no verdict", said=str(exc)) from exc
                if not isinstance(exc, PermanentError):
                    raise TemporaryError(
                        f"interrupted: {type(exc).__name__}", said=str(exc)
                    ) from exc
                # the engine does not take it, or cannot be given it
                level: Level = "L3" if wanted and not isinstance(exc, Unreadable) else "L2"
                raise Unrestorable(level, exc.plain, exc.said) from exc
        return found


def _manifests(environment: Environment, backup: str) -> tuple[Manifest, tuple[Manifest, ...]]:
    try:
        manifest, earlier = environment.backup_chain(backup)
    except Refused:
        raise
    except PermanentError as exc:
        raise Rejected("L0", str(exc)) from exc
    if manifest.id != backup:
        raise Rejected("L0", f"the manifest at {backup} belongs to {manifest.id}")
    return manifest, earlier


def _look(
    environment: Environment, identity: str, manifest: Manifest, earlier: tuple[Manifest, ...]
) -> None:
    for one in (*earlier, manifest):
        faults = look(environment.store, one)
        if faults:
            words = "; ".join(f"{fault.artefact} {fault.what}" for fault in faults)
            raise Rejected("L0", f"{one.id}: {words}")
    public = str(pyrage.x25519.Identity.from_str(identity).to_public())
    if public not in manifest.recipients:
        raise Rejected("L0", f"it is not encrypted for the verify pool's key {public[:12]}…")
