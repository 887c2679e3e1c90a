"""Backs up what a restore will replace, and reads every byte of that backup before data is deleted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from archive.manifest import Manifest, Measure
from archive.reader import Damaged, SetReader
from cluster.lease import LeaseHeld
from components.access import Access
from components.base import Live
from errors import IsaError, PermanentError
from operations.backup.component import Unneeded, back_up
from operations.backup.prerequisites import check_store
from operations.environment.environment import Environment
from operations.runner.context import RunContext
from operations.state.restore_journal import InterruptedRestore


@dataclass(frozen=True)
class SafetySet:
    """The backup of what a restore replaces.

    Attributes:
        id: of the set; "" where the run that was broken off had none, or there is nothing to keep.
        lost: units that it could not completely restore → why; a restore does not replace them.
    """

    id: str
    lost: dict[str, str] = field(default_factory=dict)


def take_safety(
    environment: Environment,
    context: RunContext,
    identity: str,
    component: str,
    chosen: tuple[str, ...],
    *,
    access: Access,
    earlier: InterruptedRestore | None = None,
    beyond: Manifest | None = None,
) -> SafetySet:
    """Back up what will be replaced, read it with its whole chain, and ask the engine whether it would accept it.

    Data left by an interrupted run may be impossible to back up: then that run's safety backup is used.

    Args:
        environment: opened.
        context: of the run.
        identity: age private key that opens the sets.
        component: name.
        chosen: units that will be replaced.
        access: the way to the live engine.
        earlier: the interrupted restore.
        beyond: the set that comes back, with its digests: where the engine holds nothing beyond it, none is kept.

    Raises:
        Damaged: what was just stored cannot be read back.
        PermanentError: the backup could restore no unit.
        LeaseHeld, TemporaryError: no backup was taken.
    """
    able = check_store(environment)

    def take(full: bool) -> SetReader:
        taken = back_up(
            environment,
            context,
            component,
            able,
            slot="",
            full=full,
            needed=lambda found: beyond is None or holds_more(found, beyond),
        )
        manifest, needed = environment.backup_chain(taken.id)
        return SetReader(environment.store, manifest, identity, needed)

    live = environment.components[component].live
    try:
        reader = take(full=False)
    except LeaseHeld:
        raise
    except Unneeded:
        return SafetySet("")
    except IsaError:
        if earlier is None or context.cancellation.is_set():
            raise
        return SafetySet(next(iter(earlier.safety), ""))
    try:
        read_through(reader, live, chosen)
    except Damaged:
        if not reader.manifest.needs:
            raise
        # the bytes of an earlier set are not sound any more; those of the engine are
        reader = take(full=True)
        read_through(reader, live, chosen)
    # of what an earlier run has half replaced the first safety set has the data, however little can be taken now
    kept = set(earlier.units) if earlier else set()
    found = _lost(reader, chosen, live.can_take(access, reader, chosen))
    lost = {unit: reason for unit, reason in found.items() if unit not in kept}
    if set(lost) == set(chosen):
        raise PermanentError(
            f"nothing was replaced: the safety backup {reader.manifest.id} would not restore "
            f"{'; '.join(lost.values())}. Change that in the engine first, or discard the current data "
            "(--no-safety-backup)"
        )
    return SafetySet(reader.manifest.id, lost)


def holds_more(found: Manifest, than: Manifest) -> bool:
    """Whether a set holds, or may hold, what another one has not.

    Args:
        found: just taken, with its digests.
        than: with its digests.
    """
    known = {(one.unit, one.item): one for one in than.fingerprint}
    return bool(found.missing) or any(
        not _is_part(one, known.get((one.unit, one.item))) for one in found.fingerprint
    )


def read_through(reader: SetReader, live: Live, chosen: tuple[str, ...]) -> None:
    """Read everything that a restore of these units needs.

    Raises:
        Damaged: an artefact is not what was stored.
    """
    reader.read_whole(set(live.units(reader)) - set(chosen))


def _is_part(found: Measure, of: Measure | None) -> bool:
    """Whether everything that was counted is known to be in another measure too."""
    if not max(found.count, found.until or 0):
        return True
    if of is None or found.until is not None:
        return False
    if found.digest and (found.count, found.digest) == (of.count, of.digest):
        return True
    return len(found.names) == found.count and found.names.items() <= of.names.items()


def _lost(reader: SetReader, chosen: tuple[str, ...], refusals: Iterable[str]) -> dict[str, str]:
    """Return units that the safety backup could not completely restore → why."""
    return {
        unit: reason
        for unit in chosen
        for reason in (*reader.manifest.missing, *refusals)
        if reason.startswith(f"{unit}: ")
    }
