"""Records a restore while it replaces data, so that an interrupted one is completed by the next.

The note is on the Lease of the component's backups, beside resources held in the engine (a stopped member). It
names the backup and the safety backups, and stays until everything is replaced: until then the engine
has neither the old data nor the new, every backup of it is partial, and the previous data is only in the
first of these safety backups.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from archive.backup.cleanup_journal import (
    CleanupJournal,
    HalfReplaced,
    Unreadable,
    notes_text,
    read_notes,
)
from cluster.kube import Kube
from cluster.lease import Lease, UnreadableNote, inquire, lease_of
from config.models import Settings
from operations.environment.leases import after_interval_backup, backup_lease


@dataclass(frozen=True)
class InterruptedRestore:
    """A restore that has not completed.

    Attributes:
        backup: id of the set that it restores.
        safety: ids of the safety backups, of the first attempt first; empty if it took none.
        units: that may be half replaced.
    """

    backup: str
    safety: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str) -> InterruptedRestore | None:
        """Read the note on the Lease; None if nothing is half replaced, as far as it can be read."""
        notes = [note for note in read_notes(text) if isinstance(note, HalfReplaced)]
        if not notes:
            return None
        safety = dict.fromkeys(name for note in notes for name in note.safety)
        units = sorted({unit for note in notes for unit in note.replacing})
        return cls(notes[-1].restoring, tuple(safety), tuple(units))

    @property
    def words(self) -> str:
        """Describe the problem, and what to do."""
        before = (
            f"; the previous data is in {self.safety[0]}: `isa restore {self.safety[0]}`"
            if self.safety
            else ""
        )
        return (
            f"a restore of {self.backup} was interrupted while it replaced {', '.join(self.units)}: run `isa restore "
            f"{self.backup}` again to complete it{before}"
        )


def interrupted_restore(
    kube: Kube, settings: Settings, component: str
) -> InterruptedRestore | None:
    """Return the interrupted restore of a component; None if there is none.

    Raises:
        UnreadableNote: there may be one.
    """
    text = inquire(kube, settings, backup_lease(component))[0]
    doubt = doubt_of(text, settings, component)
    if doubt is not None:
        raise doubt
    return InterruptedRestore.read(text)


def doubt_of(text: str, settings: Settings, component: str) -> UnreadableNote | None:
    """Return why it is unknown whether a restore was interrupted; None if it is known.

    Args:
        text: on the Lease.
        settings: of the environment.
        component: name.
    """
    if not any(isinstance(one, Unreadable) for one in read_notes(text)):
        return None
    unknown = f"it is unknown whether a restore of {component} was interrupted"
    return UnreadableNote(settings.kubernetes.control_namespace, backup_lease(component), unknown)


def journal_on(lease: Lease, what: InterruptedRestore | None = None) -> CleanupJournal:
    """The journal for resources held in an engine, on the Lease of the component's backups.

    Args:
        lease: held by this run.
        what: the restore that replaces, if one does.
    """
    return CleanupJournal(
        read_notes(lease.previous_operation),
        lambda notes: lease.note(notes_text(notes)),
        restoring=what.backup if what else "",
        safety=what.safety if what else (),
    )


@contextmanager
def replacing(
    kube: Kube, settings: Settings, component: str, run: str, what: InterruptedRestore
) -> Iterator[CleanupJournal]:
    """Replace a component's data; returns the journal for resources that an engine holds and units that it replaces.

    Args:
        kube: the cluster.
        settings: of the environment.
        component: name.
        run: who does it.
        what: the restore, as it is recorded; it completes units that others have half replaced.

    Raises:
        LeaseHeld: a backup of the component is running.
    """
    own = lease_of(kube, settings, backup_lease(component), run)
    with after_interval_backup(own) as lease:
        cleanup = journal_on(lease, what)
        yield cleanup
        for note in cleanup.earlier(HalfReplaced):
            if set(note.replacing) <= set(what.units):
                cleanup.release(note)


def forget(kube: Kube, settings: Settings, component: str, run: str) -> None:
    """Remove the note: half-replaced and unreadable data is gone with the component's old volumes.

    Raises:
        LeaseHeld: a backup of the component is running.
    """
    own = lease_of(kube, settings, backup_lease(component), run)
    with after_interval_backup(own) as lease:
        cleanup = journal_on(lease)
        for note in (*cleanup.earlier(HalfReplaced), *cleanup.earlier(Unreadable)):
            cleanup.release(note)
