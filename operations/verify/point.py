"""Verifies a point between two backups: a scratch engine recovers to it from a base backup and stored WAL.

Levels: L0 manifest, objects and WAL lead to the point; L1 every byte is what was stored; L2 the engine's own tools
accept the base backup; L3 the engine reached the point; L4 it stopped there and nowhere else, and its tables and
indexes are sound. The verdict is about the point. It is stored beside the base backup, on which it says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from random import Random

from archive.backup.manifest import Manifest, component_of
from archive.backup.reader import Damaged, SetReader
from archive.catalogue.listing import Catalogue
from archive.evidence.verdicts import Evidence
from archive.wal.coverage import NotCovered
from archive.wal.names import COMPONENT
from archive.wal.point import (
    Base,
    Point,
    WalOf,
    base_of,
    bases_of,
    began_later,
    chain_faults,
    choose_point,
    find_point,
    newest_target,
    stored_wal,
)
from archive.wal.target import RecoveryTarget
from cluster.credentials import password
from components.base import PointModule, Recovered
from errors import ArgumentError, Fault, PermanentError
from operations.environment.environment import Environment
from operations.environment.leases import verify_lease
from operations.runner.context import RunContext
from operations.runner.transfer import Transfer, watched
from operations.verify.comparison import describe
from operations.verify.proof import Rejected, conclude, read_backup
from operations.verify.scratch import Unrestorable
from operations.verify.scratch_pod import Request
from operations.verify.trial import Trial
from operations.verify.verdict import Course, EvidenceWriter, Outcome

AT = "@"  # between the id of the base backup and the point, in the name of a verification
NEWEST = "newest"  # as a point: the last one that the stored WAL reaches
# `PerformWalRecovery` and `FinishWalRecovery` in src/backend/access/transam/xlogrecovery.c; the same since 13
ENDED_EARLY = "recovery ended before configured recovery target was reached"


def point_of(environment: Environment, target: RecoveryTarget) -> Point:
    """Find the base backup and the WAL that lead to a point, before anything is read or started.

    Raises:
        NotCovered: none do; with the ranges that are covered.
        TemporaryError, PermanentError: the bucket cannot be listed.
    """
    bases = bases_of(usable(environment.catalogue([COMPONENT])))
    return choose_point(bases, wal_of(environment), target, datetime.now(UTC))


def usable(catalogue: Catalogue) -> Iterable[Manifest]:
    """Backups that recovery to a point may begin with: those that no verification refuses."""
    return (one for one in catalogue.of(COMPONENT) if not catalogue.refused(one.id))


def wal_of(environment: Environment) -> WalOf:
    """The stored WAL, by the system identifier of its database cluster."""
    return stored_wal(
        environment.store, environment.settings.environment, environment.trust.backups
    )


def verification_of(point: Point) -> str:
    """Name of the verification of a point: id of the base backup and the point."""
    return f"{point.base.manifest.id}{AT}{point.target.text}"


def nightly_points(environment: Environment, catalogue: Catalogue, dice: Random) -> tuple[str, ...]:
    """Verifications of a random time since the base backup before the newest one, and of the newest point.

    Args:
        environment: opened.
        catalogue: with the backups of PostgreSQL.
        dice: chooses the time.

    Returns:
        Their names; none where no WAL is stored.
    """
    bases = bases_of(usable(catalogue))
    if not environment.settings.wal.postgresql.enabled or not bases:
        return ()
    wal = wal_of(environment)
    newest = bases[-1]
    if began_later(newest, wal(newest.system)):
        return ()
    names = []
    first = newest
    if len(bases) > 1 and bases[-2].system == newest.system:
        first = newest if began_later(bases[-2], wal(newest.system)) else bases[-2]
    reached = newest_base(bases, wal)
    last = newest_target(reached, wal(reached.system)).time if reached else None
    if last is not None and last > first.settled:
        time = first.settled + dice.random() * (last - first.settled)
        target = RecoveryTarget(time=time)
        base = next((one for one in reversed(bases) if one.precedes(target)), first)
        names.append(f"{base.manifest.id}{AT}{target.text}")
    return (*names, f"{(reached or newest).manifest.id}{AT}{NEWEST}")


def newest_base(bases: Sequence[Base], wal: WalOf) -> Base | None:
    """The newest base backup with WAL behind it: a backup that has just ended has none yet."""
    for base in reversed(bases):
        try:
            newest_target(base, wal(base.system))
        except NotCovered:
            continue
        return base
    return None


def target_of(at: str, components: Iterable[str]) -> RecoveryTarget:
    """Read a point, and refuse components that cannot be recovered to one.

    Raises:
        ArgumentError: it is no point, or a component cannot, or none is named.
    """
    target, names = RecoveryTarget.parse(at), list(components)
    if names != [COMPONENT]:
        named = ", ".join(names) or "no component"
        hint = f"only {COMPONENT} can be recovered to a point"
        raise ArgumentError([Fault("--at", f"is used with {named}", hint)])
    return target


def points_of(environment: Environment, component: str) -> PointModule:
    """How a component recovers to a point.

    Raises:
        PermanentError: it cannot.
    """
    points = environment.backup_targets[component].point
    if points is None:
        raise PermanentError(f"{component} cannot be recovered to a point")
    return points


def prove_point(
    environment: Environment, context: RunContext, identity: str, name: str
) -> Evidence:
    """Verify a point, and store the evidence beside its base backup.

    Args:
        environment: opened.
        context: of the run.
        identity: the verify pool's age private key.
        name: of the verification (`verification_of`).

    Raises:
        LeaseHeld: another verification of this component is running.
        TemporaryError, PermanentError: no verdict was possible, for reasons outside of backup and WAL.
    """
    backup, _, text = name.partition(AT)
    target = None if text == NEWEST else RecoveryTarget.parse(text)
    course, outcome = Course(context), Outcome()
    writer = EvidenceWriter(environment, identity, backup, course, outcome, text)
    with environment.lease(verify_lease(component_of(backup)), context.who) as lease:
        return conclude(
            writer, lease, outcome, context,
            lambda: _prove(environment, identity, backup, target, course, outcome),
        )  # fmt: skip


# ---------------------------------------------------------------------- inside
def _prove(
    environment: Environment,
    identity: str,
    backup: str,
    target: RecoveryTarget | None,
    course: Course,
    outcome: Outcome,
) -> None:
    """Do all levels; raises the first fault."""
    with course.stage("manifest"):
        manifest, earlier = read_backup(environment, identity, backup, outcome)
        point = _covered(environment, manifest, target)
    course.level = "L0"
    course.context.tell(f"recovers to {point.words}")
    watch = watched(Transfer(course.context.tell), manifest.component)
    reader = SetReader(environment.store, manifest, identity, earlier, watch)
    _recover(environment, identity, reader, point, course, outcome)
    recovered = outcome.recovered
    if recovered is None:  # the image is not compatible with the backup
        return
    if recovered.faults:
        messages = "\n".join(recovered.messages)
        raise Rejected("L4", describe(recovered.faults), recovered.faults, said=messages)
    course.level = "L3" if recovered.unchecked else "L4"
    if recovered.unchecked:
        outcome.partial.append(recovered.unchecked)


def _covered(environment: Environment, manifest: Manifest, target: RecoveryTarget | None) -> Point:
    """Find the WAL that leads from a backup to a point; to the newest one, if all that is stored leads there."""
    try:
        base = base_of(manifest)
        if base is None:
            raise NotCovered(f"{manifest.id} has no base backup")
        wal = wal_of(environment)(base.system)
        if target is None:
            if faults := chain_faults(base, wal):
                raise NotCovered("; ".join(faults))
            target = newest_target(base, wal)
        return find_point(base, wal, target)
    except NotCovered as exc:
        raise Rejected("L0", str(exc)) from exc


def _recover(
    environment: Environment,
    identity: str,
    reader: SetReader,
    point: Point,
    course: Course,
    outcome: Outcome,
) -> None:
    """Recover a scratch engine to a point; what it says of itself goes into the outcome."""
    settings, manifest = environment.settings, reader.chain[-1]

    def done(recovered: Recovered) -> None:
        outcome.recovered = recovered

    restore = points_of(environment, manifest.component).restore_to(point, done)
    request = Request.of(environment, reader.chain, identity, point)
    scratches = restore.scratch(settings, manifest, password())
    try:
        Trial(request, reader, restore, course, outcome).run(scratches)
    except Damaged as exc:
        raise Rejected("L1", exc.plain, said=exc.said) from exc
    except Unrestorable as exc:
        message = exc.plain
        if ENDED_EARLY in exc.said:
            message = f"recovery ended before {point.target.words} was reached: {exc.plain}"
        raise Rejected(exc.level, message, said=exc.said) from exc
