"""A restore that is broken off while it replaces data leaves word of it, for the one that brings it to its end.

What an engine holds for it meanwhile (a stopped member) is noted on the Lease of the component's backups, which it
keeps: no backup begins of what is half replaced, and the next one puts the engine right first, as after a killed one.
The note names the safety set too. It stays until everything is replaced, whatever ends the run: until then the engine
may have nothing that could be backed up again, and what was there before is in that set alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from archive.writer import Leftovers
from cluster.kube import Kube
from cluster.lease import inquire, lease_of
from config.models import Settings
from operations.backup import backup_lease

BACKUP, SAFETY = "restoring", "safety"


@dataclass(frozen=True)
class BrokenOff:
    """A restore that did not come to its end.

    Attributes:
        backup: id of the set that it restored.
        safety: id of the set with what was there before; "" if it took none.
    """

    backup: str
    safety: str


def broken_off(kube: Kube, settings: Settings, component: str) -> BrokenOff | None:
    """The restore that a component is left in the midst of; None if there is none."""
    text, _ = inquire(kube, settings, backup_lease(component))
    for held in json.loads(text or "[]"):
        if BACKUP in held:
            return BrokenOff(str(held[BACKUP]), str(held.get(SAFETY, "")))
    return None


@contextmanager
def replacing(
    kube: Kube, settings: Settings, component: str, run: str, what: BrokenOff
) -> Iterator[Leftovers]:
    """Replace a component's data; gives where an engine notes what it holds meanwhile.

    Args:
        kube: the cluster.
        settings: of the environment.
        component: name.
        run: who does it.
        what: the restore, as it is noted until the block has ended well.

    Raises:
        LeaseHeld: a backup of the component is under way.
    """
    with lease_of(kube, settings, backup_lease(component), run) as lease:
        noted: list[bool] = []

        def note(held: list[Any]) -> None:
            if held:  # what is held no longer stays noted all the same
                more = {BACKUP: what.backup, SAFETY: what.safety}
                lease.note(json.dumps([{**one, **more} for one in held]))
                noted.append(True)

        yield Leftovers(json.loads(lease.previous_operation or "[]"), note)
        if noted:
            lease.note("[]")
