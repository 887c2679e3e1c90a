"""A value that is broken costs its shard the fingerprint and no more, and a large one costs no memory."""

from __future__ import annotations

import io
import tracemalloc
from typing import Any, cast

import pytest

from components.redis.backup import back_up
from components.redis.keys.rdb import UnknownFormat, read_keys

from .redis_double import three_shards
from .test_redis_shards import Written


def rdb(kind: int, value: bytes) -> bytes:
    """A file with one key `k`."""
    return b"REDIS0011" + bytes([kind]) + b"\x01k" + value + b"\xff"


SET, SET_PACKED, SORTED_PACKED, LIST, HASH_PACKED, INTS, STREAM = 2, 20, 17, 18, 16, 11, 21
BROKEN = {
    "a listpack without an end": rdb(SET_PACKED, b"\x07\0\0\0\0\0\0\x01"),
    "a score that is no number": rdb(SORTED_PACKED, b"\x0d" + bytes(6) + b"\x81a\x02\x81b\x02\xff"),
    "a field without a value": rdb(HASH_PACKED, b"\x0a" + bytes(6) + b"\x81a\x02\xff"),
    "integers of no width": rdb(INTS, b"\x08" + bytes(8)),
    "a stream's name that is short": rdb(STREAM, b"\x01\x01a"),
    "a copy of nothing": rdb(SET, b"\x01\xc3\x02\x05\x20\x00"),
    "a string longer than any": rdb(SET, b"\x01\x81" + b"\x7f" * 8),
}


@pytest.mark.parametrize("file", BROKEN.values(), ids=BROKEN)
def test_it_is_an_unknown_format(file: bytes) -> None:
    with pytest.raises((UnknownFormat, EOFError)):
        list(read_keys(io.BytesIO(file)))


def test_a_packed_string_is_unpacked_no_further_than_its_size() -> None:
    packed = b"\x00a" + b"\xe0\xff\x00" * 20_000
    file = rdb(SET, b"\x01\xc3\x80" + len(packed).to_bytes(4, "big") + b"\x05" + packed)
    assert peak(file) < 1 << 20


@pytest.mark.parametrize("file", [BROKEN["a listpack without an end"], rdb(0, b"\x09cut")])
def test_its_shard_is_stored_and_named(file: bytes) -> None:
    cluster = three_shards()
    for server in cluster.servers:
        server.rdb = file if server.number == 4 else server.rdb
    with cluster.served() as access:
        (missing,) = back_up(access, cast(Any, Written())).missing
    assert missing.startswith("shard 1: no fingerprint, because its RDB has")


def test_members_are_counted_as_they_are_read() -> None:
    members = b"".join(b"\x08%08d" % number for number in range(20_000))
    assert peak(rdb(SET, b"\x80" + (20_000).to_bytes(4, "big") + members)) < 100_000


def peak(file: bytes) -> int:
    """Bytes of memory that it takes to read a file, whether it can be or not."""
    stored = io.BytesIO(file)
    tracemalloc.start()
    try:
        list(read_keys(stored))
    except UnknownFormat:
        pass
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most
