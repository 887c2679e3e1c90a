"""Whether a set's objects are all in the store, in their sizes (L0). Whether their bytes are sound, `reader` says."""

from __future__ import annotations

from dataclasses import dataclass

from archive.manifest import Manifest
from archive.store import Missing, Store


@dataclass(frozen=True)
class Fault:
    """What is wrong with an artefact.

    Attributes:
        artefact: its name.
        what: in words.
    """

    artefact: str
    what: str


def look(store: Store, manifest: Manifest) -> list[Fault]:
    """L0: every object is there in its size.

    Raises:
        TemporaryError: the store is away.
    """
    faults = []
    for artefact in manifest.artefacts:
        try:
            size, _ = store.describe(manifest.key(artefact))
        except Missing:
            faults.append(Fault(artefact.name, "is not in the store"))
            continue
        if size != artefact.stored_size:
            faults.append(
                Fault(artefact.name, f"has {size} bytes instead of {artefact.stored_size}")
            )
    return faults
