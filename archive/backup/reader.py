"""Reads a backup for a restore: plain bytes, each artefact compared with its manifest to the last byte.

Damage may only show at the end of a stream: `Damaged` is raised then, and the data restored from it must be discarded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from archive.backup import digests
from archive.backup.encryption import SUFFIX, Encrypted, Writable, decrypt
from archive.backup.manifest import Artefact, Manifest
from archive.backup.references import fully_needed
from archive.object_store.store import Missing, Refused, Store
from archive.streams.chunks import HashingCounter, Put, as_file, prefetch
from archive.streams.unpacking import Unreadable
from errors import PermanentError


class Damaged(PermanentError):
    """An artefact does not exist, or is not what was stored."""


class SetReader:
    """One backup, and the earlier ones that it depends on. Safe to share between threads.

    Args:
        store: the bucket.
        manifest: the backup's manifest.
        identity: age private key.
        earlier: manifests of `needs`, in that order. Artefacts that lie in one of them are read there.
        told: called with artefact and size of every plain chunk; may raise to stop.

    Attributes:
        whole: keys of the objects that were read to their end and are intact.
    """

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        identity: str,
        earlier: Iterable[Manifest] = (),
        told: Callable[[str, int], None] = lambda name, size: None,
    ) -> None:
        self.store = store
        self._stored = manifest
        self.chain = (*earlier, manifest)
        self.whole: set[str] = set()
        self._identity = identity
        self._told = told

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest of the backup; with its digests if the key is available.

        Raises:
            Damaged: they cannot be read.
            TemporaryError: the store does not answer.
        """
        if not self._identity or not digests.apart(self._stored):
            return self._stored
        try:
            sets = [*(one for one in self.chain if one.id in self._stored.holders), self._stored]
            documents = {one.id: self.read(digests.NAME, one) for one in sets}
            return digests.with_digests(self._stored, documents)
        except (Damaged, Refused):
            raise
        except PermanentError as exc:
            raise Damaged(str(exc)) from exc

    def names(self, form: str, of: Manifest | None = None) -> list[str]:
        """Plain names of the artefacts of a format, of this backup or of one that it depends on."""
        artefacts = (of or self._stored).artefacts
        return [a.name.removesuffix(SUFFIX) for a in artefacts if a.format == form]

    def unit(self, name: str) -> str:
        """The unit of an artefact."""
        return self._artefact(self._stored, name).unit

    def size(self, name: str, of: Manifest | None = None) -> int:
        """Plain bytes of an artefact."""
        return self._artefact(of or self._stored, name).plain_size

    def sha256(self, name: str) -> str:
        """SHA-256 of an artefact's plain bytes, in hexadecimal."""
        return self._artefact(self.manifest, name).plain_sha256

    def stream(self, name: str, of: Manifest | None = None) -> Iterator[bytes]:
        """Plain bytes of an artefact, read a few chunks ahead of the consumer.

        Raises:
            Damaged: it is not what was stored; raised at its end only.
            TemporaryError: the store does not answer.
        """
        return prefetch(lambda put: self.write(name, _Given(put), of), f"read {name}")

    def write(self, name: str, target: Writable, of: Manifest | None = None) -> None:
        """Write an artefact's plain bytes somewhere.

        Raises:
            Damaged: it is not what was stored; known at its end only.
            TemporaryError: the store does not answer.
        """
        manifest = of or self.manifest
        self._check(manifest, self._artefact(manifest, name), target)

    def save(self, name: str, file: Path, of: Manifest | None = None) -> Path:
        """Write an artefact's plain bytes to a file that only its owner may read."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        with file.open("wb") as target:
            self.write(name, target, of)
        return file

    def read(self, name: str, of: Manifest | None = None) -> bytes:
        """The content of a small artefact."""
        return b"".join(self.stream(name, of))

    def json(self, name: str, of: Manifest | None = None) -> Any:
        """The content of a small JSON artefact.

        Raises:
            Unreadable: it is not JSON.
        """
        try:
            return json.loads(self.read(name, of))
        except ValueError as exc:
            raise Unreadable(f"{name} is not valid JSON") from exc

    def read_rest(self, but: Iterable[str] = ()) -> None:
        """Read every artefact that was not read yet, so that every byte of the backup is checked.

        Args:
            but: plain names that other code reads.

        Raises:
            Damaged: an artefact is not what was stored.
        """
        skipped = set(but)
        self._read([self.manifest], lambda artefact: artefact.name.removesuffix(SUFFIX) in skipped)

    def read_whole(self, but: Iterable[str] = ()) -> None:
        """Read the unread artefacts of the backup and of all that it depends on, before live data is deleted.

        Args:
            but: units that will not be restored.

        Raises:
            Damaged: an artefact is not what was stored.
            TemporaryError: the store does not answer.
        """
        skipped = set(but)
        sets = [*fully_needed(self._stored, self.chain[:-1]), self._stored]
        self._read(sets, lambda artefact: artefact.unit in skipped)

    # ------------------------------------------------------------------ inside
    @staticmethod
    def _artefact(manifest: Manifest, name: str) -> Artefact:
        for artefact in manifest.artefacts:
            if artefact.name in (name, name + SUFFIX):
                return artefact
        raise Damaged(f"{manifest.id} has no {name}")

    def _read(self, sets: Iterable[Manifest], skipped: Callable[[Artefact], bool]) -> None:
        for manifest in sets:
            for artefact in manifest.artefacts:
                if manifest.key(artefact) not in self.whole and not skipped(artefact):
                    self._check(manifest, artefact, _Nowhere())

    def _check(self, manifest: Manifest, artefact: Artefact, target: Writable) -> None:
        key, label = manifest.key(artefact), f"{manifest.id}: {artefact.name}"
        guard = _Told(target, lambda size: self._told(artefact.name, size), artefact, label)
        try:
            if artefact.sealed:
                stored = decrypt(self.store, key, self._identity, guard)
            else:
                stored = _plain(self.store.read(key), guard)
        except Missing as exc:
            raise Damaged(f"{label} is not in the object store") from exc
        except (Refused, Damaged):
            raise
        except PermanentError as exc:
            if guard.failed:  # the target failed, not the object
                raise
            raise Damaged(f"{label} cannot be decrypted: {exc}") from exc
        sizes = (artefact.plain_size, artefact.stored_size)
        if (stored.plain_size, stored.stored_size) != sizes:
            raise Damaged(f"{label} has {stored.stored_size} bytes instead of {sizes[1]}")
        # the digests of a backup that this one needs are not read: the hash of the stored bytes covers the plain bytes
        plain = artefact.plain_sha256 or stored.plain_sha256
        if (stored.plain_sha256, stored.stored_sha256) != (plain, artefact.stored_sha256):
            raise Damaged(f"{label} is not what was stored: its hash differs")
        self.whole.add(key)


@contextmanager
def opened(pieces: Iterator[bytes]) -> Iterator[BinaryIO]:
    """A stream as a file to read. On exit the rest of it is read too, so that its end is compared."""
    yield as_file(pieces)
    for _ in pieces:
        pass


def _plain(pieces: Iterator[bytes], target: Writable) -> Encrypted:
    counter = HashingCounter()
    for piece in counter.of(pieces):
        target.write(piece)
    return Encrypted(counter.size, counter.sha256, counter.size, counter.sha256)


class _Told:
    """Passes on at most the bytes that the manifest states, reports progress, and records a failure of the target."""

    def __init__(
        self, target: Writable, told: Callable[[int], None], artefact: Artefact, where: str
    ) -> None:
        self._target, self._tell, self._where = target, told, where
        self._left = self._promised = artefact.plain_size
        self.failed = False

    def write(self, data: bytes, /) -> None:
        self._left -= len(data)
        if self._left < 0:  # a few bytes can unpack to any number and fill the disk
            raise Damaged(
                f"{self._where} is larger than the {self._promised} bytes in its manifest"
            )
        try:
            self._tell(len(data))
            self._target.write(data)
        except BaseException:
            self.failed = True
            raise


class _Nowhere:
    def write(self, data: bytes, /) -> None:
        """Discard the bytes."""


class _Given:
    def __init__(self, put: Put) -> None:
        self._put = put

    def write(self, data: bytes, /) -> None:
        if data:
            self._put(data)
