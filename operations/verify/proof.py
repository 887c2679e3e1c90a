"""Verifies one backup: restores it into scratch engines, and compares it with what the source held.

Levels: L0 the manifest and its objects exist; L1 every byte is what was stored; L2 the engine's own tools accept
it; L3 an engine serves it; L4 it matches the fingerprint. A verdict is about the backup; a problem that prevents
a verdict is an *error*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import pyrage

from archive.backup.manifest import IDENTITY, Manifest, Measure
from archive.backup.reader import Damaged, SetReader
from archive.backup.references import fully_needed
from archive.catalogue.check import look
from archive.evidence.verdicts import Difference, Evidence, Level, Verdict
from archive.object_store.store import Refused
from cluster.command import Cancelled
from cluster.credentials import password
from cluster.lease import Lease
from errors import IsaError, PermanentError
from operations.environment.environment import Environment
from operations.environment.leases import verify_lease
from operations.runner.context import RunContext
from operations.runner.transfer import Transfer, watched
from operations.verify.comparison import compare, describe
from operations.verify.compatibility import version_mismatch
from operations.verify.scratch import Unrestorable
from operations.verify.scratch_pod import Request
from operations.verify.trial import Trial
from operations.verify.verdict import Course, EvidenceWriter, Outcome


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
    course, outcome = Course(context), Outcome()
    writer = EvidenceWriter(environment, identity, backup, course, outcome)
    with environment.lease(verify_lease(match["component"]), context.who) as lease:
        return conclude(
            writer, lease, outcome, context,
            lambda: _prove(environment, identity, backup, course, outcome),
        )  # fmt: skip


def conclude(
    writer: EvidenceWriter,
    lease: Lease,
    outcome: Outcome,
    context: RunContext,
    verify: Callable[[], None],
) -> Evidence:
    """Do a verification and store its verdict.

    Args:
        writer: of the evidence.
        lease: of the component's verifications.
        outcome: what the verification finds.
        context: of the run.
        verify: does it; raises the first fault.

    Raises:
        TemporaryError, PermanentError: no verdict was possible, for reasons outside the backup.
    """
    try:
        verify()
    except Rejected as exc:
        outcome.differences = exc.differences
        return writer.write(lease, "fail", exc.plain, failed_at=exc.level, message=exc.said)
    except IsaError as exc:
        if context.cancellation.is_set():
            raise Cancelled("cancelled before there was a verdict") from exc
        with suppress(IsaError):  # it may be the store that is away
            writer.write(lease, "error", exc.plain, message=exc.said)
        exc.args = (exc.plain,)  # on its way into Prefect's database
        raise
    reason = "; ".join(outcome.partial)
    verdict: Verdict = "partial" if reason else "pass"
    return writer.write(lease, verdict, reason, message="\n".join(outcome.messages))


def read_backup(
    environment: Environment, identity: str, backup: str, outcome: Outcome
) -> tuple[Manifest, tuple[Manifest, ...]]:
    """Read a backup's manifest and those of the backups that it depends on, and check their objects (L0).

    Args:
        environment: opened.
        identity: the verify pool's age private key.
        backup: id of the set.
        outcome: gets the manifests.

    Raises:
        Rejected: one of them does not exist or is damaged, or the verify pool cannot decrypt it.
        TemporaryError: the store does not answer.
    """
    manifest, earlier = _manifests(environment, backup)
    outcome.manifest, outcome.earlier = manifest, earlier
    _check_objects(environment, identity, manifest, earlier)
    return manifest, earlier


# ---------------------------------------------------------------------- inside
def _prove(
    environment: Environment, identity: str, backup: str, course: Course, outcome: Outcome
) -> None:
    """Do all levels; raises the first fault."""
    with course.stage("manifest"):
        manifest, earlier = read_backup(environment, identity, backup, outcome)
    course.level = "L0"
    watch = watched(Transfer(course.context.tell), manifest.component)
    reader = SetReader(environment.store, manifest, identity, earlier, watch)
    measures = _restore(environment, identity, reader, course, outcome)
    if manifest.missing:
        outcome.partial.append(f"the backup itself is partial: {'; '.join(manifest.missing)}")
    if measures is not None:
        _compare(environment, reader, measures, course, outcome)


def _restore(
    environment: Environment, identity: str, reader: SetReader, course: Course, outcome: Outcome
) -> Mapping[str, list[Measure]] | None:
    """Restore into scratch engines; returns their measures, None if no engine is compatible with the backup."""
    settings, manifest = environment.settings, reader.chain[-1]
    restore = environment.backup_targets[manifest.component].restore
    request = Request.of(environment, reader.chain, identity)
    scratches = restore.scratch(settings, manifest, password())
    try:
        return Trial(request, reader, restore, course, outcome).run(scratches)
    except Damaged as exc:
        raise Rejected("L1", exc.plain, said=exc.said) from exc
    except Unrestorable as exc:
        raise Rejected(exc.level, exc.plain, said=exc.said) from exc


def _compare(
    environment: Environment,
    reader: SetReader,
    measures: Mapping[str, list[Measure]],
    course: Course,
    outcome: Outcome,
) -> None:
    """Compare the restored engines with the fingerprint. Another version may cause differences."""
    manifest = reader.chain[-1]
    differences = compare(reader.manifest.fingerprint, measures)
    mismatch = version_mismatch(manifest, outcome.scratch)
    if differences and not mismatch:
        raise Rejected("L4", describe(differences), differences)
    outcome.differences = differences
    if differences:
        mismatch = f"{mismatch}, which may cause these differences: {describe(differences)}"
    else:
        course.level = environment.backup_targets[manifest.component].restore.highest
    if mismatch:
        outcome.partial.append(mismatch)


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


def _check_objects(
    environment: Environment, identity: str, manifest: Manifest, earlier: tuple[Manifest, ...]
) -> None:
    for backup in (*fully_needed(manifest, earlier), manifest):
        faults = look(environment.store, backup)
        if faults:
            message = "; ".join(f"{fault.artefact} {fault.what}" for fault in faults)
            raise Rejected("L0", f"{backup.id}: {message}")
    public = str(pyrage.x25519.Identity.from_str(identity).to_public())
    if public not in manifest.recipients:
        raise Rejected("L0", f"it is not encrypted for the verify pool's key {public[:12]}…")
