import hashlib
import threading
from collections.abc import Iterator

import pytest

from archive.streams.chunks import PREFETCH, HashingCounter, Put, as_file, prefetch
from errors import TemporaryError

PIECES = [bytes([n]) * (n * 37) for n in range(200)]


def give_all(put: Put) -> None:
    for piece in PIECES:
        put(piece)


def test_what_is_made_ahead_comes_whole_and_in_order() -> None:
    assert list(prefetch(give_all, "test")) == PIECES


def test_it_is_made_while_the_taker_is_busy_and_not_without_end() -> None:
    made: list[bytes] = []
    enough = threading.Event()

    def produce(put: Put) -> None:
        for piece in PIECES:
            made.append(piece)
            if len(made) == PREFETCH:
                enough.set()
            put(piece)

    taken = prefetch(produce, "test")
    assert next(taken) == PIECES[0]
    assert enough.wait(10)
    assert len(made) <= PREFETCH + 2  # one in each hand
    assert [PIECES[0], *taken] == PIECES


def test_a_failure_comes_behind_the_pieces_before_it() -> None:
    def produce(put: Put) -> None:
        put(b"half")
        raise TemporaryError("the store went away")

    taken = prefetch(produce, "test")
    assert next(taken) == b"half"
    with pytest.raises(TemporaryError, match="went away"):
        next(taken)


def test_a_taker_that_leaves_ends_the_making() -> None:
    ended = threading.Event()

    def produce(put: Put) -> None:
        try:
            give_all(put)
        finally:
            ended.set()

    taken = prefetch(produce, "test")
    next(taken)
    taken.close()
    assert ended.is_set()


def test_a_file_of_pieces_is_read_in_any_sizes() -> None:
    def pieces() -> Iterator[bytes]:
        yield b""
        yield from PIECES

    file = as_file(pieces())
    assert file.read(10) == PIECES[1][:10]
    assert file.read() == b"".join(PIECES)[10:]


def test_what_goes_by_is_counted_and_hashed() -> None:
    tally = HashingCounter()
    assert list(tally.of(PIECES)) == PIECES
    whole = b"".join(PIECES)
    assert (tally.size, tally.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
