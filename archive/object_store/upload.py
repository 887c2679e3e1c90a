"""Uploads an object of unknown size in equal parts, several in flight, in bounded memory.

S3 accepts at most 10,000 parts (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html), so the part size
limits the size of a stream; `part_size` chooses it from an estimate.
"""

from __future__ import annotations

import logging
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType

from archive.object_store.store import Store
from archive.streams.chunks import HashingCounter
from errors import IsaError, PermanentError

log = logging.getLogger(__name__)

MAXIMUM_PARTS = 10_000
SMALLEST_PART, LARGEST_PART = 8 << 20, 512 << 20
PARALLEL_PARTS = 4


def part_size(estimate: int) -> int:
    """Part size in bytes for a stream that may become twice as large as estimated.

    Raises:
        PermanentError: no allowed part size would do.
    """
    size = SMALLEST_PART
    while size * MAXIMUM_PARTS < estimate * 2:
        size *= 2
    if size > LARGEST_PART:
        raise PermanentError(f"{estimate} bytes are too many for one object: split the backup")
    return size


class Upload:
    """A write-only file. The end of the `with` block completes the upload, an exception aborts it.

    Args:
        store: the bucket.
        key: of the object.
        part: size of the parts, bytes.
        parallel: parts in flight; memory is (parallel + 1) × part.
    """

    def __init__(self, store: Store, key: str, part: int, parallel: int = PARALLEL_PARTS) -> None:
        self._store, self._key, self._part = store, key, part
        # Buffers are reused: new ones for each part fragmented the heap, and the process grew with the upload.
        self._body, self._filled = bytearray(), 0
        self._spare: list[bytearray] = []
        self._seen = HashingCounter()
        self._parallel = parallel
        self._pool = ThreadPoolExecutor(parallel, thread_name_prefix="upload")
        self._flying: set[Future[tuple[int, str, bytearray]]] = set()
        self._etags: dict[int, str] = {}
        self._sent = 0
        self._upload = ""

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._seen.size

    @property
    def sha256(self) -> str:
        """SHA-256 of everything written, in hexadecimal."""
        return self._seen.sha256

    def __enter__(self) -> Upload:
        self._upload = self._store.begin(self._key)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            if exc is None:
                self._finish()
        except BaseException:
            self._throw_away()
            raise
        finally:
            self._pool.shutdown(cancel_futures=True)
        if exc is not None:
            self._throw_away()

    def write(self, data: bytes) -> int:
        """Write data. Waits while all slots are busy, and raises the error of an earlier part."""
        self._seen.add(data)
        remaining = memoryview(data)
        while remaining:
            if not self._body:
                self._body = self._spare.pop() if self._spare else bytearray(self._part)
            piece = remaining[: self._part - self._filled]
            self._body[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            remaining = remaining[len(piece) :]
            if self._filled == self._part:
                self._send()
        return len(data)

    def flush(self) -> None:
        """Do nothing: a part is sent when it is full."""

    def _send(self) -> None:
        if len(self._flying) == self._parallel:
            self._land(FIRST_COMPLETED)
        if self._sent == MAXIMUM_PARTS:
            raise PermanentError(
                f"{self._key} needs more than {MAXIMUM_PARTS} parts of {self._part} bytes: the estimated size was too "
                "small"
            )
        self._sent += 1
        self._flying.add(self._pool.submit(self._put, self._sent, self._body, self._filled))
        self._body, self._filled = bytearray(), 0

    def _put(self, number: int, body: bytearray, size: int) -> tuple[int, str, bytearray]:
        content = body if size == len(body) else body[:size]
        return number, self._store.put_part(self._key, self._upload, number, content), body

    def _land(self, which: str) -> None:
        """Wait for parts in flight: one of them, or all."""
        finished, self._flying = wait(self._flying, return_when=which)
        for part in finished:
            number, etag, body = part.result()
            self._etags[number] = etag
            self._spare.append(body)

    def _finish(self) -> None:
        if self._filled or not self._sent:  # the last part may be short, the only one empty
            self._send()
        self._land(ALL_COMPLETED)
        etags = [self._etags[number] for number in sorted(self._etags)]
        self._store.complete(self._key, self._upload, etags, self.size)

    def _throw_away(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        try:
            self._store.abort(self._key, self._upload)
        except (
            IsaError
        ) as exc:  # the first error is more important; garbage collection removes the upload
            log.info(
                "the upload of %s could not be aborted; garbage collection removes it: %s",
                self._key,
                exc,
            )
