"""An object of unknown size, uploaded in parts of one size, several in flight, in bounded memory.

S3 takes 10,000 parts at most (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html), so the part size
decides how large a stream may become; `part_size` picks it from an estimate.
"""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from archive.store import Store
from errors import IsaError, PermanentError

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
    """A file that can only be written; leaving the `with` block completes it, an exception throws it away.

    Args:
        store: the bucket.
        key: of the object.
        part: size of the parts, bytes.
        parallel: parts in flight; memory is (parallel + 1) × part.
    """

    def __init__(self, store: Store, key: str, part: int, parallel: int = PARALLEL_PARTS) -> None:
        self._store, self._key, self._part = store, key, part
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._digest = hashlib.sha256()
        self._slots = threading.Semaphore(parallel)
        self._pool = ThreadPoolExecutor(parallel, thread_name_prefix="upload")
        self._parts: list[Future[str]] = []
        self._upload = ""
        self.size = 0

    @property
    def sha256(self) -> str:
        """Of everything written, in hexadecimal."""
        return self._digest.hexdigest()

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
        """Take data; waits while all slots are busy, and raises what a part before has failed of."""
        self._digest.update(data)
        self._buffer.append(data)
        self._buffered += len(data)
        self.size += len(data)
        while self._buffered >= self._part:
            whole = b"".join(self._buffer)
            self._buffer = [whole[self._part :]]
            self._buffered -= self._part
            self._send(whole[: self._part])
        return len(data)

    def flush(self) -> None:
        """Parts go when they are full."""

    def _send(self, body: bytes) -> None:
        self._slots.acquire()
        for part in self._parts:
            if part.done():
                part.result()
        if len(self._parts) == MAXIMUM_PARTS:
            raise PermanentError(
                f"{self._key} needs more than {MAXIMUM_PARTS} parts of {self._part} bytes: the estimate was too small"
            )
        future = self._pool.submit(
            self._store.put_part, self._key, self._upload, len(self._parts) + 1, body
        )
        future.add_done_callback(lambda _: self._slots.release())
        self._parts.append(future)

    def _finish(self) -> None:
        if self._buffered or not self._parts:  # the last part may be short, the only one empty
            self._send(b"".join(self._buffer))
            self._buffer.clear()
        etags = [part.result() for part in self._parts]
        self._store.complete(self._key, self._upload, etags, self.size)

    def _throw_away(self) -> None:
        for part in self._parts:
            part.cancel()
        self._pool.shutdown()
        try:
            self._store.abort(self._key, self._upload)
        except IsaError:  # the sweep finds it; what went wrong first is what matters
            return
