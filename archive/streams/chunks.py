"""Streams of chunks of bytes: counted and hashed, produced in a thread ahead of the consumer, or read as a file."""

from __future__ import annotations

import hashlib
import io
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO

PREFETCH = 16  # pieces in the queue between producer and consumer
BUFFER_BYTES = 256 << 10  # half of a core's cache

Put = Callable[[bytes], object]


class HashingCounter:
    """Counts and hashes the bytes that pass.

    Attributes:
        size: bytes so far.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes so far, in hexadecimal."""
        return self._digest.hexdigest()

    def add(self, piece: bytes) -> None:
        """Count one chunk."""
        self._digest.update(piece)
        self.size += len(piece)

    def of(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Return the chunks, each counted before it is passed on."""
        for piece in pieces:
            self.add(piece)
            yield piece


class _Left(Exception):
    """The consumer has stopped reading."""


def prefetch(produce: Callable[[Put], None], name: str) -> Generator[bytes, None, None]:
    """Iterate over the chunks of a producer that runs in its own thread.

    Args:
        produce: called in the thread with a function that takes a chunk. That function blocks while the consumer is
            behind, and raises when the consumer has stopped.
        name: of the thread.

    Raises:
        Any exception of `produce`, after the chunks before it.
    """
    between: queue.Queue[bytes | BaseException | None] = queue.Queue(PREFETCH)
    left = threading.Event()

    def hand(item: bytes | BaseException | None) -> None:
        while not left.is_set():
            try:
                return between.put(item, timeout=0.2)
            except queue.Full:
                continue
        raise _Left

    def run() -> None:
        with suppress(_Left):
            try:
                produce(hand)
                hand(None)
            except BaseException as exc:  # raised in the consumer's thread
                hand(exc)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        while (piece := between.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        left.set()
        thread.join()


def as_file(pieces: Iterator[bytes]) -> BinaryIO:
    """A stream that can be read in any sizes."""
    return io.BufferedReader(_Reading(pieces), BUFFER_BYTES)


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
