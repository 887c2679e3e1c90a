"""What the live Neo4j would not load or serve is known before it is stopped."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any, cast

import pytest
import zstandard

from components.neo4j import compatibility
from components.neo4j.compatibility import (
    Member,
    Room,
    room_of,
    too_new,
    unpacked_size,
    unserved,
    without_room,
)
from errors import TemporaryError

MIB = 1 << 20


@pytest.mark.parametrize(
    ("made", "live", "refused"),
    [
        ("5.26.30", "5.26.1", False),
        ("5.26.30", "2025.10.1", False),
        ("5.26.30", "5.25.0", True),
        ("2025.10.1", "5.26.30", True),
        ("5.26.30", "", False),
    ],
)
def test_a_dump_of_a_later_version_is_refused(made: str, live: str, refused: bool) -> None:
    assert bool(too_new(made, live)) == refused


def test_a_database_that_the_server_would_not_serve_is_told_with_the_setting() -> None:
    assert unserved("neo4j", frozenset({"neo4j", "system"})) == ""
    assert unserved("graph", frozenset()) == ""  # the server does not answer
    assert "initial.dbms.default_database to graph" in unserved(
        "graph", frozenset({"neo4j", "system"})
    )


def test_what_a_database_takes_now_counts_as_room_for_it() -> None:
    needed = {"neo4j": 900 * MIB}
    assert without_room(needed, Room(100 * MIB, {"neo4j": 800 * MIB})) == {}
    assert (
        "has 800 MiB free" in without_room(needed, Room(100 * MIB, {"neo4j": 700 * MIB}))["neo4j"]
    )


def test_room_is_given_once() -> None:
    found = without_room({"neo4j": 60 * MIB, "system": 60 * MIB}, Room(100 * MIB))
    assert list(found) == ["system"]


def dump(size: int, version: int = 1) -> bytes:
    header = b"zstd" + struct.pack(">iqq", version, 17, size)
    return b"DZV1" + zstandard.compress(header + bytes(5000))


def test_the_beginning_of_a_real_dump_is_understood() -> None:
    # The first bytes of a dump of 5.26.30, unpacked; `neo4j-admin database load --info` says 38 files, 42185052 bytes.
    start = bytes.fromhex("7a737464 00000001 00000000 00000026 00000000 0283b15c 2e2f5061")
    assert unpacked_size(iter([b"DZV1" + zstandard.compress(start)])) == 42_185_052


@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_a_dump_tells_what_it_takes_unpacked(piece: int) -> None:
    data = dump(123 * MIB)
    pieces = (data[at : at + piece] for at in range(0, len(data), piece))
    assert unpacked_size(pieces) == 123 * MIB


@pytest.mark.parametrize(
    "data", [b"", b"DZ", b"DZV1", b"DGV1 gzip", b"DZV1 not compressed", dump(1)[:9], dump(1, 2)]
)
def test_a_dump_that_does_not_tell_is_no_reason(data: bytes) -> None:
    assert unpacked_size(iter([data])) == 0


SAID = """/dev/disk by id  1048576  500000  548576  48% /data
2048\t/data/databases/neo4j
1024\t/data/transactions/neo4j
"""
FOLDERS = {"/data/databases/neo4j": "neo4j", "/data/transactions/neo4j": "neo4j"}


def test_free_room_and_what_is_used_are_read() -> None:
    assert room_of(SAID, FOLDERS) == Room(548_576 * 1024, {"neo4j": 3072 * 1024})


def test_room_that_is_not_told_is_an_error() -> None:
    with pytest.raises(TemporaryError, match="did not report its free space"):
        room_of("df: /data: No such file or directory", FOLDERS)


def test_a_database_that_the_set_does_not_hold_is_no_reason_to_refuse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    member = Member("5.26.30", frozenset({"neo4j", "system"}), "/data")
    monkeypatch.setattr(compatibility, "_member", lambda access: member)
    manifest = SimpleNamespace(engine=SimpleNamespace(version="5.26.30"))
    empty: Any = SimpleNamespace(names=lambda form: [], manifest=manifest)
    assert compatibility.can_take(cast(Any, None), empty, ["database neo4j"]) == []
