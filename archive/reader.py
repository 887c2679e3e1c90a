"""Reads a set back for a restore: plain bytes, each artefact compared with its manifest to the last byte.

Whoever restores streams what may turn out to be damaged only at its end: then `Damaged` is raised, and what was made of
it is worth nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from archive.manifest import Artefact, Manifest
from archive.seal import SUFFIX, Sealed, Writable, unseal
from archive.store import Missing, Store
from errors import PermanentError

AHEAD = 16  # pieces that lie between store and reader, of 1 MiB at most


class Damaged(PermanentError):
    """An artefact is not what was stored, or not there at all."""


class SetReader:
    """One set, and the earlier ones that it needs. Safe to share between threads.

    Args:
        store: the bucket.
        manifest: of the set.
        identity: age private key.
        earlier: manifests of `needs`, in that order.
        told: gets artefact and size of every plain piece; may raise to stop.

    Attributes:
        whole: keys of the objects that were read to their end and are what was stored.
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
        self.manifest = manifest
        self.chain = (*earlier, manifest)
        self.whole: set[str] = set()
        self._identity = identity
        self._told = told

    def names(self, form: str, of: Manifest | None = None) -> list[str]:
        """Plain names of the artefacts of a format; of this set, or of one that it needs."""
        found = (of or self.manifest).artefacts
        return [a.name.removesuffix(SUFFIX) for a in found if a.format == form]

    def unit(self, name: str) -> str:
        """Unit that an artefact holds."""
        return self._artefact(self.manifest, name).unit

    def size(self, name: str, of: Manifest | None = None) -> int:
        """Plain bytes of an artefact."""
        return self._artefact(of or self.manifest, name).plain_size

    def sha256(self, name: str) -> str:
        """Of an artefact's plain bytes, in hexadecimal."""
        return self._artefact(self.manifest, name).plain_sha256

    def stream(self, name: str, of: Manifest | None = None) -> Iterator[bytes]:
        """An artefact's plain bytes, a few pieces ahead of whoever takes them.

        Raises:
            Damaged: it is not what was stored; known at its end only.
            TemporaryError: the store is away.
        """
        ahead: queue.Queue[bytes | BaseException | None] = queue.Queue(AHEAD)
        left = threading.Event()

        def fetch() -> None:
            try:
                self.write(name, _Ahead(ahead, left), of)
                _put(ahead, None, left)
            except BaseException as exc:  # the reader's thread is where it is wanted
                _put(ahead, exc, left)

        thread = threading.Thread(target=fetch, name=f"read {name}", daemon=True)
        thread.start()
        try:
            while (piece := ahead.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            left.set()
            thread.join()

    def write(self, name: str, target: Writable, of: Manifest | None = None) -> None:
        """Write an artefact's plain bytes somewhere.

        Raises:
            Damaged: it is not what was stored; known at its end only.
            TemporaryError: the store is away.
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
        """A small artefact."""
        return b"".join(self.stream(name, of))

    def json(self, name: str, of: Manifest | None = None) -> Any:
        """A small artefact that is JSON."""
        return json.loads(self.read(name, of))

    def read_rest(self, but: Iterable[str] = ()) -> None:
        """Read what nobody has read, so that every byte of the set was seen.

        Args:
            but: plain names that somebody else reads.

        Raises:
            Damaged: an artefact is not what was stored.
        """
        spared = set(but)
        for artefact in self.manifest.artefacts:
            name = artefact.name.removesuffix(SUFFIX)
            if self.manifest.key(artefact) not in self.whole and name not in spared:
                self._check(self.manifest, artefact, _Nowhere())

    # ------------------------------------------------------------------ inside
    @staticmethod
    def _artefact(manifest: Manifest, name: str) -> Artefact:
        for artefact in manifest.artefacts:
            if artefact.name in (name, name + SUFFIX):
                return artefact
        raise Damaged(f"{manifest.id} has no {name}")

    def _check(self, manifest: Manifest, artefact: Artefact, target: Writable) -> None:
        key, where = manifest.key(artefact), f"{manifest.id}: {artefact.name}"
        watched = _Told(target, lambda size: self._told(artefact.name, size))
        try:
            if artefact.sealed:
                found = unseal(self.store, key, self._identity, watched)
            else:
                found = _plain(self.store.read(key), watched)
        except Missing as exc:
            raise Damaged(f"{where} is not in the store") from exc
        except PermanentError as exc:
            if watched.failed:  # not the object's fault
                raise
            raise Damaged(f"{where} cannot be opened: {exc}") from exc
        wanted = (artefact.plain_size, artefact.stored_size)
        if (found.plain_size, found.stored_size) != wanted:
            raise Damaged(f"{where} has {found.stored_size} bytes instead of {wanted[1]}")
        if (found.plain_sha256, found.stored_sha256) != (
            artefact.plain_sha256,
            artefact.stored_sha256,
        ):
            raise Damaged(f"{where} is not what was stored: its hash differs")
        self.whole.add(key)


@contextmanager
def opened(pieces: Iterator[bytes]) -> Iterator[BinaryIO]:
    """A stream as a file to read, for what wants one; on leaving, what is left of it is read too, so that its end is
    compared.
    """
    yield io.BufferedReader(_Reading(pieces), 1 << 20)
    for _ in pieces:
        pass


class _Reading(io.RawIOBase):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _plain(pieces: Iterator[bytes], target: Writable) -> Sealed:
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
        target.write(piece)
    return Sealed(size, digest.hexdigest(), size, digest.hexdigest())


class _Told:
    """Hands on, and tells how much; remembers whether it was the target that failed."""

    def __init__(self, target: Writable, told: Callable[[int], None]) -> None:
        self._target, self._tell = target, told
        self.failed = False

    def write(self, data: bytes, /) -> None:
        try:
            self._tell(len(data))
            self._target.write(data)
        except BaseException:
            self.failed = True
            raise


class _Nowhere:
    def write(self, data: bytes, /) -> None:
        """Forget it."""


class _Left(Exception):
    """Nobody wants the rest."""


class _Ahead:
    def __init__(self, ahead: queue.Queue[Any], left: threading.Event) -> None:
        self._ahead, self._left = ahead, left

    def write(self, data: bytes, /) -> None:
        if data and not _put(self._ahead, bytes(data), self._left):
            raise _Left


def _put(ahead: queue.Queue[Any], item: Any, left: threading.Event) -> bool:
    """Hand something on; False if nobody waits for it any more."""
    while not left.is_set():
        try:
            ahead.put(item, timeout=0.2)
        except queue.Full:
            continue
        return True
    return False
