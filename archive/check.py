"""Whether a set is whole in the store: its objects there (L0), and each byte what it was (L1)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from archive.manifest import Artefact, Manifest
from archive.seal import unseal
from archive.store import Missing, Store
from errors import PermanentError


@dataclass(frozen=True)
class Fault:
    """What is wrong with an artefact.

    Attributes:
        artefact: its name.
        what: in words.
    """

    artefact: str
    what: str


class _Nowhere:
    def __init__(self, told: Callable[[int], None]) -> None:
        self._told = told

    def write(self, data: bytes, /) -> None:
        self._told(len(data))


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


def read_back(
    store: Store,
    manifest: Manifest,
    identity: str,
    told: Callable[[int], None] = lambda size: None,
) -> list[Fault]:
    """L1: every object is read, decrypted, decompressed and hashed, on both sides.

    Args:
        store: the bucket.
        manifest: of the set.
        identity: age private key.
        told: gets the size of every plain piece; progress.

    Raises:
        TemporaryError: the store is away.
    """
    found = (_read(store, manifest, artefact, identity, told) for artefact in manifest.artefacts)
    return [fault for fault in found if fault is not None]


def _read(
    store: Store, manifest: Manifest, artefact: Artefact, identity: str, told: Callable[[int], None]
) -> Fault | None:
    key = manifest.key(artefact)
    try:
        if not artefact.sealed:
            return _plain(store, key, artefact)
        found = unseal(store, key, identity, _Nowhere(told))
    except Missing:
        return Fault(artefact.name, "is not in the store")
    except PermanentError as exc:
        return Fault(artefact.name, str(exc))
    sizes = (found.plain_size, found.stored_size)
    hashes = (found.plain_sha256, found.stored_sha256)
    if sizes != (artefact.plain_size, artefact.stored_size):
        return Fault(artefact.name, f"has {sizes} bytes, plain and stored, and should have others")
    if hashes != (artefact.plain_sha256, artefact.stored_sha256):
        return Fault(artefact.name, "is not what was stored: its hash differs")
    return None


def _plain(store: Store, key: str, artefact: Artefact) -> Fault | None:
    digest = hashlib.sha256()
    for piece in store.read(key):
        digest.update(piece)
    if digest.hexdigest() != artefact.stored_sha256:
        return Fault(artefact.name, "is not what was stored: its hash differs")
    return None
