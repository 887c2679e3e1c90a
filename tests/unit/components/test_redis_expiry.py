"""Of the keys that expire only those may be missing whose time has come."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import pytest

from archive.backup.manifest import Measure
from components.digest import summed
from components.redis.fingerprint import EXPIRING, measure_rdb
from components.redis.keys.expiry import as_promised, measure_until_due
from operations.verify.comparison import compare

UNIT = "all keys"
NOW = 1_800_000_000_000
MONTHS = NOW + 90 * 86_400_000
SET = {b"stays": 0, b"code": NOW - 5, b"soon": NOW + 5, b"session": MONTHS, b"token": MONTHS}


def measures(keys: dict[bytes, int], due: int) -> list[Measure]:
    """Of an RDB file with these strings, by when they expire."""
    parts = [b"REDIS0011"]
    for name, expires in keys.items():
        parts.append(b"\xfc" + struct.pack("<q", expires) if expires else b"")
        parts.append(b"\x00" + bytes([len(name)]) + name + b"\x01v")
    return summed(measure_rdb(io.BytesIO(b"".join(parts) + b"\xff"), UNIT, due), UNIT)


def difference(*gone: bytes, other: dict[bytes, int] | None = None) -> str:
    """What a comparison says of a live cluster without some of the set's keys."""
    promised = measures(SET, 0)
    live = {key: at for key, at in {**SET, **(other or {})}.items() if key not in gone}
    found = as_promised(measures(live, NOW + 10), promised, lambda: measures(SET, NOW + 10))
    return "; ".join(f"{one.item}: {one.what}" for one in compare(promised, {"": found}))


@pytest.mark.parametrize("gone", [(), (b"code",), (b"code", b"soon")])
def test_what_is_due_may_be_gone(gone: tuple[bytes, ...]) -> None:
    assert difference(*gone) == ""


def test_what_is_not_due_must_be_there() -> None:
    assert difference(b"session", b"token") == f"{EXPIRING}: 2 instead of 4"
    # however many went by right beside it
    assert difference(b"code", b"soon", b"session") == f"{EXPIRING}: 3 instead of 4"
    assert difference(*SET).startswith(f"{EXPIRING}: 2 instead of 4")


def test_what_is_not_due_must_be_what_it_was() -> None:
    said = difference(b"code", other={b"token": MONTHS + 1})
    assert said == f"{EXPIRING}: same number (4), but different contents"


def test_the_set_is_not_read_again_where_nothing_is_missing() -> None:
    def read() -> list[Measure]:
        raise AssertionError("it is read")

    found = as_promised(measures(SET, NOW), measures(SET, 0), read)
    assert {one.item for one in found} == {EXPIRING, "strings"}


def test_a_measure_that_takes_longer_is_taken_again_with_a_moment_behind_its_end() -> None:
    clock = [0.0]

    def taking(seconds: float) -> Callable[[int], list[Measure]]:
        def measure(due: int) -> list[Measure]:
            clock[0] += seconds
            asked.append(due)
            return []

        return measure

    asked: list[int] = []
    measure_until_due(taking(10), lambda: clock[0])
    assert len(asked) == 1
    _, due = measure_until_due(taking(1000), lambda: clock[0])
    assert len(asked) == 3
    assert due > clock[0] * 1000
