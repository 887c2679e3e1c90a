"""L0: every object of a backup is in the store, with its size. Whether the bytes are intact is checked by `reader`."""

from __future__ import annotations

from dataclasses import dataclass

from archive.backup.manifest import Manifest
from archive.object_store.store import Missing, Store


@dataclass(frozen=True)
class Fault:
    """A problem with an artefact.

    Attributes:
        artefact: its name.
        what: description.
    """

    artefact: str
    what: str


def look(store: Store, manifest: Manifest) -> list[Fault]:
    """L0: check that every object exists with its size.

    Raises:
        TemporaryError: the store does not answer.
    """
    faults = []
    for artefact in manifest.artefacts:
        try:
            size, _ = store.describe(manifest.key(artefact))
        except Missing:
            faults.append(Fault(artefact.name, "is not in the object store"))
            continue
        if size != artefact.stored_size:
            faults.append(
                Fault(artefact.name, f"has {size} bytes instead of {artefact.stored_size}")
            )
    return faults
