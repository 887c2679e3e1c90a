import threading
from collections.abc import Sequence

import pytest

from archive.object_store.store import Store
from archive.object_store.upload import Upload
from errors import TemporaryError

PART = 1000


class Parts(Store):
    """A store in memory that takes even parts slower than odd ones, and may lose one."""

    def __init__(self, broken: int = 0) -> None:
        self.bodies: dict[int, bytes] = {}
        self.whole: list[str] = []
        self.aborted = False
        self.most = self._now = 0
        self._broken = broken
        self._change = threading.Condition()

    def begin(self, key: str) -> str:
        return "upload"

    def put_part(self, key: str, upload: str, number: int, body: bytes | bytearray) -> str:
        with self._change:
            self._now += 1
            self.most = max(self.most, self._now)
            if number % 2 == 0:  # lands behind the next one
                self._change.wait_for(lambda: number + 1 in self.bodies, 0.2)
            self.bodies[number] = bytes(body)
            self._now -= 1
            self._change.notify_all()
        if number == self._broken:
            raise TemporaryError("the store went away")
        return f"etag {number}"

    def complete(self, key: str, upload: str, etags: Sequence[str], size: int) -> None:
        self.whole = list(etags)

    def abort(self, key: str, upload: str) -> None:
        self.aborted = True


@pytest.mark.parametrize("piece", [1, 333, PART, 2500, 100_000])
def test_parts_are_of_one_size_and_in_order_whatever_is_written(piece: int) -> None:
    data = bytes(n % 251 for n in range(9 * PART + 7))
    store = Parts()
    with Upload(store, "key", PART, parallel=3) as upload:
        for start in range(0, len(data), piece):
            upload.write(data[start : start + piece])
    assert [len(store.bodies[n]) for n in range(1, 11)] == [PART] * 9 + [7]
    assert b"".join(store.bodies[n] for n in range(1, 11)) == data
    assert store.whole == [f"etag {n}" for n in range(1, 11)]
    assert store.most <= 3
    assert upload.size == len(data)


def test_nothing_written_is_one_empty_part() -> None:
    store = Parts()
    with Upload(store, "key", PART):
        pass
    assert store.bodies == {1: b""}


def test_a_part_that_fails_ends_the_writing_and_throws_the_others_away() -> None:
    store = Parts(broken=2)
    with pytest.raises(TemporaryError, match="went away"), Upload(store, "key", PART, 2) as upload:
        for _ in range(100):
            upload.write(bytes(PART))
    assert len(store.bodies) < 10
    assert store.aborted
    assert store.whole == []
