"""A restore that is broken off while it replaces data leaves word of it, for the one that brings it to its end.

The word stands on the Lease of the component's backups, beside what the engine holds for it (a stopped member). It
names the set and the safety sets, and stays until everything is replaced, whatever ends the run: until then the engine
has something that is neither the old nor the new, every backup of it is partial, and what was there before is in the
first of these safety sets alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from archive.leftovers import REPLACING, Held, Leftovers
from cluster.kube import Kube
from cluster.lease import inquire, lease_of
from config.models import Settings

BACKUP, SAFETY = "restoring", "safety"


def backup_lease(component: str) -> str:
    """Name of the Lease that a component's backups hold, and whoever replaces its data; with what engines hold."""
    return f"isa-backup-{component}"


@dataclass(frozen=True)
class BrokenOff:
    """A restore that has not come to its end.

    Attributes:
        backup: id of the set that it restores.
        safety: ids of the sets with what was there before, of the first attempt first; none if it took none.
        units: that may be half replaced.
    """

    backup: str
    safety: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str) -> BrokenOff | None:
        """What is written on the Lease; None if there is nothing half replaced."""
        found = [held for held in json.loads(text or "[]") if REPLACING in held]
        if not found:
            return None
        safety = dict.fromkeys(name for held in found for name in held[SAFETY])
        units = sorted({unit for held in found for unit in held[REPLACING]})
        return cls(str(found[-1][BACKUP]), tuple(safety), tuple(units))

    @property
    def words(self) -> str:
        """What is not as it should be, and what to do."""
        before = (
            f"; what was there before is in {self.safety[0]}: `isa restore {self.safety[0]} --into live`"
            if self.safety
            else ""
        )
        return (
            f"a restore of {self.backup} was broken off in the midst of {', '.join(self.units)}: "
            f"`isa restore {self.backup} --into live` again brings it to its end{before}"
        )


def broken_off(kube: Kube, settings: Settings, component: str) -> BrokenOff | None:
    """The restore that a component is left in the midst of; None if there is none."""
    return BrokenOff.read(inquire(kube, settings, backup_lease(component))[0])


@contextmanager
def replacing(
    kube: Kube, settings: Settings, component: str, run: str, what: BrokenOff
) -> Iterator[Leftovers]:
    """Replace a component's data; gives where an engine notes what it holds and replaces meanwhile.

    Args:
        kube: the cluster.
        settings: of the environment.
        component: name.
        run: who does it.
        what: the restore, as it is noted; what others have half replaced of its units is whole behind it.

    Raises:
        LeaseHeld: a backup of the component is under way.
    """
    with _leftovers(kube, settings, component, run, what) as leftovers:
        yield leftovers
        for held in leftovers.earlier(REPLACING):
            if set(held[REPLACING]) <= set(what.units):
                leftovers.release(held)


def forget(kube: Kube, settings: Settings, component: str, run: str) -> None:
    """What was half replaced is away: the component's volumes are others now.

    Raises:
        LeaseHeld: a backup of the component is under way.
    """
    with _leftovers(kube, settings, component, run) as leftovers:
        for held in leftovers.earlier(REPLACING):
            leftovers.release(held)


# ---------------------------------------------------------------------- inside
@contextmanager
def _leftovers(
    kube: Kube, settings: Settings, component: str, run: str, what: BrokenOff | None = None
) -> Iterator[Leftovers]:
    with lease_of(kube, settings, backup_lease(component), run) as lease:
        mine = {BACKUP: what.backup, SAFETY: what.safety} if what else {}

        def note(all_held: Iterable[Held]) -> None:
            lease.note(
                json.dumps([{**(mine if REPLACING in held else {}), **held} for held in all_held])
            )

        yield Leftovers(json.loads(lease.previous_operation or "[]"), note)
