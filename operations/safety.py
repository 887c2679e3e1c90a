"""Backs up what a restore will replace, and reads every byte of it back before anything goes."""

from __future__ import annotations

from archive.catalogue import find_chain
from archive.reader import Damaged, SetReader
from cluster.command import CANCELLATION
from cluster.lease import LeaseHeld
from components import COMPONENTS
from components.base import Live
from errors import IsaError, PermanentError
from operations.backup import Vault, back_up
from operations.replacing import BrokenOff
from operations.transfer import Transfer


def take_safety(
    vault: Vault,
    identity: str,
    component: str,
    chosen: tuple[str, ...],
    *,
    run: str,
    transfer: Transfer,
    earlier: BrokenOff | None = None,
) -> str:
    """Back up what will be replaced, and read it back with all that it rests on.

    What a run that was broken off has left may be nothing that can be backed up: then that one's safety set counts.

    Args:
        vault: the environment.
        identity: age private key that opens the sets.
        component: name.
        chosen: units that will be replaced.
        run: who does it, for the Lease.
        transfer: gets told of bytes.
        earlier: the restore that the component was left in the midst of.

    Returns:
        The set's id; "" where the run that was broken off had none.

    Raises:
        Damaged: what was just stored cannot be read back.
        PermanentError: the set lacks something of a unit that will be replaced.
        LeaseHeld, TemporaryError: there is no set.
    """
    able = vault.check()

    def take(full: bool) -> SetReader:
        taken = back_up(vault, component, able, slot="", run=run, transfer=transfer, full=full)
        manifest, needed = find_chain(vault.store, vault.settings.environment, taken.id)
        return SetReader(vault.store, manifest, identity, needed)

    live = COMPONENTS[component].live
    try:
        reader = take(full=False)
    except LeaseHeld:
        raise
    except IsaError:
        if earlier is None or CANCELLATION.is_set():
            raise
        return next(iter(earlier.safety), "")
    try:
        read_through(reader, live, chosen)
    except Damaged:
        if not reader.manifest.needs:
            raise
        # the bytes of an earlier set are not sound any more; those of the engine are
        reader = take(full=True)
        read_through(reader, live, chosen)
    _refuse_missing(reader, chosen)
    return reader.manifest.id


def read_through(reader: SetReader, live: Live, chosen: tuple[str, ...]) -> None:
    """Read all that a restore of these units needs.

    Raises:
        Damaged: an artefact is not what was stored.
    """
    reader.read_whole(set(live.units(reader)) - set(chosen))


def _refuse_missing(reader: SetReader, chosen: tuple[str, ...]) -> None:
    """Refuse to replace what the safety set does not wholly have."""
    lost = [
        why
        for why in reader.manifest.missing
        if any(why.startswith(f"{unit}: ") for unit in chosen)
    ]
    if lost:
        raise PermanentError(
            f"nothing was replaced: the safety backup {reader.manifest.id} lacks {'; '.join(lost)}. "
            "Take these away by hand first, restore other units (--unit), or let them go (--no-safety-backup)"
        )
