"""Backs up what a restore will replace, and reads every byte of that backup before data is deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from archive.backup.manifest import Manifest, Measure
from archive.backup.reader import Damaged, SetReader
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
    capabilities = check_store(environment)

    def take(full: bool) -> SetReader:
        backup = back_up(
            environment,
            context,
            component,
            capabilities,
            slot="",
            full=full,
            needed=lambda content: beyond is None or holds_more(content, beyond),
        )
        manifest, needed = environment.backup_chain(backup.id)
        return SetReader(environment.store, manifest, identity, needed)

    live = environment.components[component].live
    try:
        reader = take(False)
    except LeaseHeld:
        raise
    except Unneeded:
        return SafetySet("")
    except IsaError:
        if earlier is None or context.cancellation.is_set():
            raise
        return SafetySet(next(iter(earlier.safety), ""))
    reader = _read_back(reader, take, live, chosen)
    lost = _lost(reader, chosen, live.can_take(access, reader, chosen))
    if (
        earlier is not None
    ):  # the first safety backup has the data of units that it has half replaced
        lost = {unit: reason for unit, reason in lost.items() if unit not in earlier.units}
    if set(lost) == set(chosen):
        raise PermanentError(
            f"nothing was replaced: the safety backup {reader.manifest.id} would not restore "
            f"{'; '.join(lost.values())}. Change that in the engine first, or discard the current data "
            "(--no-safety-backup)"
        )
    return SafetySet(reader.manifest.id, lost)


def holds_more(backup: Manifest, than: Manifest) -> bool:
    """Whether a set holds, or may hold, what another one has not.

    Args:
        backup: just taken, with its digests.
        than: with its digests.
    """
    other_measures = {(measure.unit, measure.item): measure for measure in than.fingerprint}
    return bool(backup.missing) or any(
        not _is_part(measure, other_measures.get((measure.unit, measure.item)))
        for measure in backup.fingerprint
    )


def read_through(reader: SetReader, live: Live, chosen: tuple[str, ...]) -> None:
    """Read everything that a restore of these units needs.

    Raises:
        Damaged: an artefact is not what was stored.
    """
    reader.read_whole(set(live.units(reader)) - set(chosen))


def _read_back(
    reader: SetReader, take: Callable[[bool], SetReader], live: Live, chosen: tuple[str, ...]
) -> SetReader:
    """Read a safety backup to its last byte; if an earlier backup that it needs is damaged, take a full one."""
    try:
        read_through(reader, live, chosen)
    except Damaged:
        if not reader.manifest.needs:
            raise
        reader = take(True)
        read_through(reader, live, chosen)
    return reader


def _is_part(measure: Measure, of: Measure | None) -> bool:
    """Whether everything that was counted is known to be in another measure too."""
    if not max(measure.count, measure.until or 0):
        return True
    if of is None or measure.until is not None:
        return False
    if measure.digest and (measure.count, measure.digest) == (of.count, of.digest):
        return True
    return len(measure.names) == measure.count and measure.names.items() <= of.names.items()


def _lost(reader: SetReader, chosen: tuple[str, ...], refusals: Iterable[str]) -> dict[str, str]:
    """Return units that the safety backup could not completely restore → why."""
    return {
        unit: reason
        for unit in chosen
        for reason in (*reader.manifest.missing, *refusals)
        if reason.startswith(f"{unit}: ")
    }
