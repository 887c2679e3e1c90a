"""Fields of hashes that expire count apart from what stays, in every form in which a server writes them."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable, Mapping
from itertools import chain, repeat
from typing import Any

import pytest

from archive.backup.manifest import Measure
from components.redis.fingerprint import (
    FIELDS,
    FIELDS_LATER,
    FUNCTIONS,
    has_fields_apart,
    measure_rdb,
    together,
)
from components.redis.keys.expiry import as_promised
from operations.verify.comparison import compare

NOW = 1_800_000_000_000
LATER = NOW + 90 * 86_400_000
Hash = Mapping[bytes, tuple[bytes, int]]  # field → value, Unix time in ms or 0
CART: Hash = {b"owner": (b"ann", 0), b"code": (b"1234", NOW), b"token": (b"abcd", LATER)}


def text(value: bytes) -> bytes:
    return bytes([len(value)]) + value


def number(value: int) -> bytes:
    return b"\x81" + value.to_bytes(8, "big") if value > 63 else bytes([value])


def listpack(items: list[bytes | int]) -> bytes:
    """Short strings, and integers of 64 bits: redis/redis src/listpack.c."""
    body = b""
    for item in items:
        if isinstance(item, int):
            body += b"\xf4" + struct.pack("<q", item) + b"\x09"
        else:
            body += bytes([0x80 | len(item)]) + item + bytes([len(item) + 1])
    return struct.pack("<IH", len(body) + 7, len(items)) + body + b"\xff"


def packed(fields: Hash) -> bytes:
    items = [item for f, (v, at) in fields.items() for item in (f, v, at)]
    whole = listpack(items)
    return b"\x40" + bytes([len(whole)]) + whole if len(whole) > 63 else text(whole)


def earliest(fields: Hash) -> int:
    return min(at for _, at in fields.values() if at)


# Type number of RDB → how that server writes a hash.
FORMS: dict[str, tuple[bytes, int, Callable[[Hash], bytes]]] = {
    "Valkey 9": (b"VALKEY080", 22, lambda h: bytes([len(h)]) + b"".join(
        text(f) + text(v) + struct.pack("<q", at or -1) for f, (v, at) in h.items())),
    "Redis 7.4 before its release": (b"REDIS0012", 22, lambda h: bytes([len(h)]) + b"".join(
        number(at) + text(f) + text(v) for f, (v, at) in h.items())),
    "Redis 7.4 before its release, packed": (b"REDIS0012", 23, packed),
    "Redis 7.4": (b"REDIS0012", 24, lambda h: struct.pack("<q", earliest(h)) + bytes([len(h)]) + b"".join(
        number(at - earliest(h) + 1 if at else 0) + text(f) + text(v) for f, (v, at) in h.items())),
    "Redis 7.4, packed": (b"REDIS0012", 25, lambda h: struct.pack("<q", earliest(h)) + packed(h)),
}  # fmt: skip
PLAIN: tuple[bytes, int, Callable[[Hash], bytes]] = (b"REDIS0012", 4, lambda h: bytes([len(h)]) + b"".join(
    text(f) + text(v) for f, (v, _) in h.items()))  # fmt: skip


def file_of(fields: Hash, form: str = "Redis 7.4", *, expires: int = 0) -> io.BytesIO:
    magic, code, encode = FORMS[form] if any(at for _, at in fields.values()) else PLAIN
    end = b"\xfc" + struct.pack("<q", expires) if expires else b""
    value = encode(fields) if fields else b""
    key = end + bytes([code]) + text(b"cart") + value if fields else b""
    return io.BytesIO(magic + key + b"\xff")


def measures(fields: Hash, due: int = 0, **options: bool) -> list[Measure]:
    return measure_rdb(file_of(fields), "all keys", due, **options)


def without(*gone: bytes) -> Hash:
    return {field: value for field, value in CART.items() if field not in gone}


def difference(live: Hash, wanted: Hash = CART) -> str:
    """What a comparison says of a live cluster that holds this hash."""
    promised = measures(wanted)
    found = as_promised(measures(live, NOW + 10), promised, lambda: measures(wanted, NOW + 10))
    return "; ".join(f"{one.item}: {one.what}" for one in compare(promised, {"": found}))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_measures(form: str) -> None:
    found = measure_rdb(file_of(CART, form), "all keys")
    assert found == measures(CART)
    assert {one.item: one.count for one in found} == {FIELDS: 2, "hashs": 1}


def test_a_field_whose_time_has_come_may_be_gone() -> None:
    assert difference(without(b"code")) == ""


def test_a_field_that_is_not_due_must_be_there() -> None:
    assert difference(without(b"token")) == f"{FIELDS}: 1 instead of 2"
    assert difference(without(b"code", b"token")) == f"{FIELDS}: 1 instead of 2"


def test_a_field_that_is_not_due_must_be_what_it_was() -> None:
    other = {**without(b"code"), b"token": (b"efgh", LATER)}
    assert difference(other) == f"{FIELDS}: same number (2), but different contents"


def test_what_stays_of_a_hash_must_be_what_it_was() -> None:
    other = {**CART, b"owner": (b"eve", 0)}
    assert difference(other) == "hashs: same number (1), but different contents"


def test_a_hash_goes_with_the_last_of_its_fields() -> None:
    passing: Hash = {b"code": (b"1234", NOW)}
    assert difference({}, passing) == ""
    assert difference({}, {b"token": (b"abcd", LATER)}).startswith(f"{FIELDS}: 0 instead of 1")


def test_fields_of_a_key_that_expires_go_with_it_at_the_latest() -> None:
    wanted = measure_rdb(file_of(CART, expires=NOW + 5), "all keys")
    stored = measure_rdb(file_of(CART, expires=NOW + 5), "all keys", NOW + 10)
    found = as_promised([], wanted, lambda: stored)
    assert not compare(wanted, {"": found})


def test_a_set_that_counted_fields_with_their_hash_is_compared_so() -> None:
    older = measures(CART, fields_apart=False)
    assert [one.item for one in older] == ["hashs"]
    assert not has_fields_apart(older)
    assert has_fields_apart(measures(CART))
    assert not has_fields_apart(measures(without(b"code", b"token")))


class Growing(io.RawIOBase):
    """A file of a hash whose fields all expire, made as it is read."""

    def __init__(self, fields: int) -> None:
        head = b"VALKEY080" + bytes([22]) + text(b"cart") + number(fields)
        one = text(b"field") + text(b"value") + struct.pack("<q", LATER)
        self._pieces = chain([head], repeat(one, fields), [b"\xff"])
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._left or next(self._pieces, b"")
        size = min(len(piece), len(buffer))
        buffer[:size], self._left = piece[:size], piece[size:]
        return size


def test_fields_that_expire_take_no_more_memory_the_more_there_are() -> None:
    file = io.BufferedReader(Growing(20_000))
    tracemalloc.start()
    found = {one.item: one.count for one in measure_rdb(file, "all keys", NOW)}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == {FIELDS: 20_000, FIELDS_LATER: 20_000}
    assert peak < 1 << 20


# ---------------------------------------------------------------------- function libraries
def shard(number: int, **libraries: str) -> list[Measure]:
    parts = [b"REDIS0012"]
    for name, body in libraries.items():
        parts.append(b"\xf5" + text(f"#!lua name={name}\n{body}".encode()))
    return measure_rdb(io.BytesIO(b"".join(parts) + b"\xff"), f"shard {number}")


def libraries(*shards: list[Measure]) -> Measure:
    (found,) = together([one for measures in shards for one in measures], "all keys")
    assert found.item == FUNCTIONS
    return found


def test_libraries_of_all_shards_count_once() -> None:
    everywhere = libraries(shard(0, shop="a"), shard(1, shop="a"), shard(2, shop="a"))
    assert everywhere == libraries(shard(0, shop="a"))
    assert everywhere == libraries(shard(0, shop="a"), shard(1), shard(2))
    both = libraries(shard(0, shop="a", bank="b"))
    assert both == libraries(shard(0, shop="a"), shard(1, bank="b"), shard(2, shop="a"))
    assert both.count == 2


def test_a_library_that_is_lost_or_other_is_named() -> None:
    wanted = libraries(shard(0, shop="a", bank="b"))

    def told(*shards: list[Measure]) -> str:
        (one,) = compare([wanted], {"": [libraries(*shards)]})
        return one.what

    assert told(shard(0, shop="a"), shard(1)) == "1 instead of 2: missing bank"
    assert told(shard(0, shop="a", bank="c")).endswith("but different contents: other bank")


def test_a_library_of_a_name_of_any_length_leaves_a_manifest_that_is_read_again() -> None:
    name = "x" * 150_000
    rdb = (
        b"REDIS0012\xf5"
        + b"\x80"
        + struct.pack(">I", len(name) + 13)
        + f"#!lua name={name}\nc".encode()
    )
    (measure,) = measure_rdb(io.BytesIO(rdb + b"\xff"), "shard 0")
    assert Measure.model_validate_json(measure.model_dump_json()) == measure
    assert libraries([measure]).names == measure.names
    assert [len(one) < 2000 and one.startswith("xxx") for one in measure.names] == [True]


def test_one_name_with_two_contents_is_two_libraries() -> None:
    found = libraries(shard(0, shop="a"), shard(1, shop="b"))
    assert found.count == len(found.names) == 2


def test_an_older_set_with_different_shards_leaves_a_range() -> None:
    older = [
        one.model_copy(update={"names": {}}) for one in (*shard(0, a="x", b="y"), *shard(1, a="x"))
    ]
    found = libraries(older)
    assert (found.count, found.until, found.digest) == (2, 3, "")
    assert not compare([found], {"": [libraries(shard(0, a="x", b="y"))]})
