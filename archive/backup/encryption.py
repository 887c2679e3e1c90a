"""Compress and encrypt a stream on its way into the store, and back: zstd (RFC 8878), then age (https://age-encryption.org/v1).

Both are formats of stock tools: `age -d -i KEY | zstd -d` gives the plain stream, without this project.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import pyrage
import zstandard

from archive.object_store.store import Store
from archive.object_store.upload import Upload
from archive.streams.chunks import BUFFER_BYTES, HashingCounter, Put, as_file, prefetch
from errors import PermanentError

# Level 1 is twice as fast as 3 for a tenth more bytes (measured on COPY data: 199-235 against 92-100 MB/s of one core).
LEVEL = 1
SUFFIX = ".zst.age"


class Writable(Protocol):
    """A sink for plain bytes."""

    def write(self, data: bytes, /) -> object:
        """Take bytes."""


@dataclass(frozen=True)
class Encrypted:
    """What went through.

    Attributes:
        plain_size: bytes before compression.
        plain_sha256: of those, in hexadecimal.
        stored_size: bytes in the store.
        stored_sha256: of those, in hexadecimal.
    """

    plain_size: int
    plain_sha256: str
    stored_size: int
    stored_sha256: str


def public_keys(recipients: Iterable[str]) -> list[pyrage.x25519.Recipient]:
    """Parse age public keys.

    Raises:
        PermanentError: a recipient is not an age key.
    """
    try:
        return [pyrage.x25519.Recipient.from_str(recipient) for recipient in recipients]
    except pyrage.RecipientError as exc:
        raise PermanentError(f"an age recipient is not a public key: {exc}") from exc


def encrypt(
    source: Iterable[bytes], store: Store, key: str, recipients: Sequence[str], part: int
) -> Encrypted:
    """Store a stream compressed and encrypted, in bounded memory.

    Args:
        source: the plain stream, in chunks of any size.
        store: the bucket.
        key: of the object.
        recipients: age public keys; the holder of any matching private key can decrypt it.
        part: part size, bytes.

    Raises:
        PermanentError: a recipient is not an age key; the store refuses.
        TemporaryError: the store did not answer. In both cases no object is stored.
    """
    keys = public_keys(recipients)
    plain, failure = HashingCounter(), _Failure()
    compressor = zstandard.ZstdCompressor(
        level=LEVEL, write_checksum=True, threads=len(os.sched_getaffinity(0))
    )
    file: Any = _Pulled(failure.noting(plain.of(source)))
    packed = compressor.stream_reader(file)
    with Upload(store, key, part) as upload:
        try:
            # age asks for 8 KiB at a time: of a buffer, which takes more at once
            pyrage.encrypt_io(
                io.BufferedReader(packed, BUFFER_BYTES), _Written(upload.write, failure), keys
            )
        except pyrage.EncryptError as exc:
            raise failure.first or PermanentError(f"{key} cannot be encrypted: {exc}") from exc
    return Encrypted(plain.size, plain.sha256, upload.size, upload.sha256)


def decrypt(store: Store, key: str, identity: str, target: Writable) -> Encrypted:
    """Read an object: decrypt, decompress, write, and hash on both sides.

    The next chunk is read from the store and hashed in its own thread at the same time.

    Args:
        store: the bucket.
        key: of the object.
        identity: age private key.
        target: receives the plain stream.

    Raises:
        Missing: the object does not exist.
        PermanentError: it is not encrypted for this key, or was cut or changed.
    """
    stored, plain, failure = HashingCounter(), HashingCounter(), _Failure()

    def take(data: bytes) -> int:
        plain.add(data)
        target.write(data)
        return len(data)

    # in pieces of zstd's own block size, however much a few bytes unpack to: 32 KiB may hold a gibibyte
    file: Any = _Written(take, failure)
    unpacked = zstandard.ZstdDecompressor().stream_writer(file, closefd=False)

    def fetch(put: Put) -> None:
        for piece in stored.of(store.read(key)):
            put(piece)

    with closing(prefetch(fetch, f"get {key}")) as pieces:
        try:
            keys = [pyrage.x25519.Identity.from_str(identity)]
            opened = _Gathered(_Written(unpacked.write, failure))
            pyrage.decrypt_io(as_file(failure.noting(pieces)), opened, keys)
            opened.flush()
            for (
                _
            ) in pieces:  # behind the encrypted stream, where nothing should be: it is hashed too
                pass
        except (pyrage.DecryptError, zstandard.ZstdError, OSError) as exc:
            if failure.first is not None and not isinstance(failure.first, zstandard.ZstdError):
                if failure.first is exc:
                    raise
                raise failure.first from exc  # the store's, or the target's
            raise PermanentError(f"{key} cannot be decrypted: {exc}") from exc
    return Encrypted(plain.size, plain.sha256, stored.size, stored.sha256)


class _Failure:
    """Keeps the original exception of a file: pyrage replaces it by its own, and its class would be lost."""

    def __init__(self) -> None:
        self.first: Exception | None = None

    def note(self, exc: Exception) -> None:
        """It was raised."""
        self.first = self.first or exc

    def noting(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The pieces, watched."""
        try:
            yield from pieces
        except Exception as exc:
            self.note(exc)
            raise


class _Pulled:
    """A file to read, that gives its pieces in whatever size they have."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = filter(None, pieces)  # an empty one would be taken for the end

    def read(self, _: int = -1) -> bytes:
        return next(self._pieces, b"")


class _Written:
    """A file to write, that hands on."""

    def __init__(self, write: Callable[[bytes], object], failure: _Failure) -> None:
        self._write, self._failure = write, failure

    def write(self, data: bytes) -> int:
        try:
            self._write(data)
        except Exception as exc:
            self._failure.note(exc)
            raise
        return len(data)

    def flush(self) -> None:
        """Everything has been handed on."""


class _Gathered:
    """Buffers writes: age writes 8 KiB at a time, and decompressing and hashing such small chunks doubles the cost."""

    def __init__(self, target: _Written) -> None:
        self._target, self._held = target, bytearray()

    def write(self, data: bytes) -> int:
        self._held += data
        if len(self._held) >= BUFFER_BYTES:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Hand on what is held."""
        held, self._held = bytes(self._held), bytearray()
        self._target.write(held)
