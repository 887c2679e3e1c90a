"""A backup that refers to artefacts of an earlier one, instead of storing what has not changed.

The manifest lists such an artefact with its sizes and hashes, and the id of the backup that stores it. A reference
always names the backup that stores the bytes, never one that refers itself. The unit is compared by its state, which
the engine can tell without reading the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from archive.backup.digests import FORM, apart
from archive.backup.manifest import Artefact, Manifest
from archive.backup.writer import SetWriter


class References:
    """The units of a backup in progress that an earlier one may hold already.

    Args:
        writer: of the backup.
        chain: the earlier backups that it may depend on, the newest last; empty for a full backup.

    Attributes:
        states: unit → state, of the units that a later backup can refer to.
    """

    def __init__(self, writer: SetWriter, chain: Sequence[Manifest]) -> None:
        self._writer = writer
        self._newest = chain[-1] if chain and apart(chain[-1]) else None
        self.states: dict[str, str] = {}

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of the backups that store what this one refers to, the oldest first."""
        artefacts = self._writer.artefacts
        return tuple(sorted({one.stored_in for one in artefacts if one.stored_in}))

    def unchanged(self, unit: str, state: Any) -> Manifest | None:
        """Refer to the artefacts of a unit if the newest backup stored it in this state.

        Args:
            unit: of the artefacts.
            state: everything that changes when the unit does, as a JSON value. It must be read before the data.

        Returns:
            That backup, whose entries of the unit count for this one too; None if the unit must be stored.
        """
        digest = self._writer.keyed_digest(state)
        newest = self._newest
        if newest is None or newest.states.get(unit) != digest:
            return None
        artefacts = [artefact for artefact in newest.artefacts if artefact.unit == unit]
        if len({artefact.stored_in for artefact in artefacts}) != 1:
            return None
        for artefact in artefacts:
            self._writer.refer(artefact, newest)
        self.states[unit] = digest
        return newest

    def stored(self, unit: str, before: Any, after: Any) -> None:
        """Record the state of a unit that was stored, unless it changed during that time.

        Args:
            unit: of the artefacts.
            before: the state read before the data.
            after: read after it.
        """
        if before == after:
            self.states[unit] = self._writer.keyed_digest(before)


def fully_needed(manifest: Manifest, earlier: Iterable[Manifest]) -> tuple[Manifest, ...]:
    """Return the earlier backups of which a backup needs everything, and not only the artefacts that it refers to."""
    return tuple(needed for needed in earlier if needed.id not in manifest.holders)


def unfounded_reference(manifest: Manifest, earlier: Iterable[Manifest]) -> str:
    """Return why a reference of a backup does not hold; "" if all of them do.

    Args:
        manifest: of the backup.
        earlier: the backups that it depends on.
    """
    holders = {backup.id: backup for backup in earlier}
    for artefact in manifest.artefacts:
        if not artefact.stored_in:
            continue
        holder = holders[artefact.stored_in]
        where = f"it refers to {artefact.name} in {holder.id}"
        if artefact.format == FORM:
            return f"{where}, but every backup has digests of its own"
        if holder.cluster != manifest.cluster:
            return f"{where}, which is of another cluster"
        if holder.outcome != "complete":
            return f"{where}, which is partial"
        if set(holder.recipients) != set(manifest.recipients):
            return f"{where}, which is encrypted for other keys"
        if not any(_same(artefact, entry) for entry in holder.artefacts):
            return f"{where}, which does not store it"
    return ""


# ---------------------------------------------------------------------- inside
def _same(reference: Artefact, entry: Artefact) -> bool:
    """Whether an artefact stores the bytes of a reference; one that refers itself does not."""
    return not entry.stored_in and reference.model_copy(update={"stored_in": ""}) == entry
