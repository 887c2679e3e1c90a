"""Buffers a stream on disk, for sources that cannot wait for the store.

NATS aborts a snapshot 5 s after the last acknowledgement; Qdrant and Redis hold locks or buffers while they send. So
their streams are drained at their own speed into an unnamed file, and read from there; the store may be slow, or down
for a minute. The file can be read again, so that a fingerprint is computed from exactly the stored bytes.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Protocol

from errors import PermanentError

PIECE_BYTES = 1 << 20
# Space left free for other components and for the node; at most a twentieth of the disk.
RESERVE_BYTES = 256 << 20
CHECK_BYTES = 8 << 20  # written between two checks of the free space


class Disk(NamedTuple):
    """Free space on a disk, bytes."""

    total: int
    free: int


def disk_of(directory: Path) -> Disk:
    """Return the free space on a directory's disk."""
    usage = shutil.disk_usage(directory)
    return Disk(usage.total, usage.free)


class Spool:
    """Drains a source in its own thread. It can be iterated several times, also while the source is still draining.

    Args:
        source: the stream.
        directory: on the disk to use; the plain bytes are in an unnamed file there until the spool is closed.
        name: name of the source, for messages.
        expected: size that the source reports, bytes. A larger source is stopped at twice the reserve, so that it
            cannot fill the disk for the other components.
        disk: returns the free space on the disk.
    """

    def __init__(
        self,
        source: Iterable[bytes],
        directory: Path,
        name: str = "a stream",
        expected: int = 0,
        disk: Callable[[Path], Disk] = disk_of,
    ) -> None:
        self._source = source
        self._directory = directory
        self._name, self._expected, self._disk = name, expected, disk
        self._more = threading.Condition()
        self._failure: BaseException | None = None
        self._left = self._ended = False
        self.size = 0

    def __enter__(self) -> Spool:
        prepare_spool(self._directory)
        # without a name: nothing stays on the disk after kill -9
        self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)
        self._thread = threading.Thread(target=self._drain, name="spool", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None
    ) -> None:
        self._left = True
        self._thread.join()
        self._file.close()

    def __iter__(self) -> Iterator[bytes]:
        """The chunks from the beginning. Waits for chunks that have not arrived yet.

        Raises:
            PermanentError: the disk is full.
            Any exception of the source.
        """
        position, handle = 0, self._file.fileno()
        while True:
            with self._more:
                while self.size == position and not self._ended:
                    self._more.wait()
                size, failure = self.size, self._failure
            if (
                failure is not None
            ):  # chunks before the failure are not returned: a partial stream must not be stored
                raise failure
            if position == size:
                return
            piece = os.pread(handle, min(PIECE_BYTES, size - position), position)
            position += len(piece)
            yield piece

    def reader(self) -> BinaryIO:
        """Return a file at its beginning, once the stream is complete; for code that cannot read chunks."""
        return io.BufferedReader(_At(self._file.fileno()), PIECE_BYTES)

    def _drain(self) -> None:
        try:
            unchecked = 0
            for piece in self._source:
                if self._left:
                    break
                unchecked += len(piece)
                if unchecked >= CHECK_BYTES:
                    self._require_reserve()
                    unchecked = 0
                remaining = memoryview(piece)
                while remaining:
                    remaining = remaining[self._file.write(remaining) :]
                with self._more:
                    self.size += len(piece)
                    self._more.notify_all()
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                self._failure = PermanentError(
                    f"the spool in {self._directory} is full after {self.size >> 20} MiB: free space there, or name "
                    "another directory in backup.spool"
                )
                self._failure.__cause__ = exc
            else:
                self._failure = exc
        except BaseException as exc:  # raised in the reader's thread
            self._failure = exc
        finally:
            with self._more:
                self._ended = True
                self._more.notify_all()

    def _require_reserve(self) -> None:
        """Stop a source that leaves the other components no space."""
        disk = self._disk(self._directory)
        reserve = min(RESERVE_BYTES, disk.total // 20)
        required = reserve * 2 if self.size > self._expected else reserve
        if disk.free < required:
            raise PermanentError(
                f"{self._name} was stopped after {self.size >> 20} MiB ({self._expected >> 20} MiB were expected): "
                f"the spool in {self._directory} has {disk.free >> 20} MiB free, and {required >> 20} MiB are reserved "
                "for other components. Check the size of the source, free space, or name another directory in "
                "backup.spool"
            )


class Readable(Protocol):
    """An object with `read`."""

    def read(self, size: int, /) -> bytes:
        """Return at most this many bytes."""


def pieces(file: Readable) -> Iterator[bytes]:
    """The rest of a file in pieces."""
    while piece := file.read(PIECE_BYTES):
        yield piece


class _At(io.RawIOBase):
    """Reads a file from a position of its own."""

    def __init__(self, handle: int) -> None:
        self._handle, self._position = handle, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = os.preadv(self._handle, [buffer], self._position)
        self._position += count
        return count


def prepare_spool(directory: Path, setting: str = "backup.spool") -> Path:
    """Create the directory of the spool, accessible only to its owner, because plain data is stored in it.

    Everyone can write to `/var/tmp`: another user who creates the directory first could read it, or redirect it.

    Args:
        directory: as the settings name it.
        setting: that names it, for messages.

    Returns:
        The same.

    Raises:
        PermanentError: it cannot be created, is a link, or belongs to another user.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError as exc:
        raise PermanentError(
            f"{setting} {directory} cannot be created: {exc.strerror or exc}"
        ) from exc
    if stat.S_ISLNK(status.st_mode):
        fault, cure = "is a symbolic link", "name the directory that it points to"
    elif status.st_uid != os.geteuid():
        fault = f"belongs to user {status.st_uid}, this process runs as {os.geteuid()}"
        cure = "remove it, or name another directory"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        fault = f"can be written by others (mode {stat.S_IMODE(status.st_mode):o})"
        cure = f"run chmod 700 {directory}, or name a directory used by isa only"
    else:
        return directory
    raise PermanentError(
        f"{setting} {directory} {fault}: unencrypted data would be exposed there: {cure}"
    )


def require_room(directory: Path, size: int) -> None:
    """Check, before a source is touched, that the spool's disk has enough space.

    Args:
        directory: the spool's directory.
        size: bytes that are needed.

    Raises:
        PermanentError: the disk has too little space.
    """
    prepare_spool(directory)
    free = shutil.disk_usage(directory).free
    if free < size:
        raise PermanentError(
            f"the spool in {directory} has {free >> 20} MiB free and needs {size >> 20} MiB: free space there, or "
            "name another directory in backup.spool"
        )
