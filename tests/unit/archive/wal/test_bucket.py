"""Stored WAL comes back as PostgreSQL's files, byte by byte, or is named as damaged."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pyrage
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from archive.backup.reader import Damaged
from archive.signing import public_half
from archive.wal.bucket import WalReader, WalWriter, list_tail, list_wal, newest_start, segment_name
from archive.wal.names import TimelineHistory, WalObject
from config.sections.backups import BackupSigner
from errors import PermanentError
from tests.unit.buckets import Bucket

from .history import NOON, SEGMENT, SYSTEM, Cluster

KEY = Ed25519PrivateKey.generate()
SIGNERS = (BackupSigner(key=public_half(KEY)),)
OWNER = pyrage.x25519.Identity.generate()


class Stored:
    """A cluster's WAL in a bucket."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.cluster.write(200)
        self.bucket = Bucket()
        self.writer = WalWriter(cast(Any, self.bucket), [str(OWNER.to_public())], KEY)
        self.reader = WalReader(cast(Any, self.bucket), str(OWNER))
        for one in self.cluster.stored(1, 0, 64, 128, 150, 192, 200, begins=True):
            self.put(one)

    def put(self, one: WalObject) -> str:
        return self.writer.put(one, self.cluster.wal[one.timeline][one.start : one.end])

    @property
    def line(self) -> Any:
        listing = list_wal(cast(Any, self.bucket), "test", SIGNERS)
        assert listing.refused == {}
        return listing.of(SYSTEM).coverage.lines[0]

    def read(self) -> dict[str, bytes]:
        return dict(self.reader.segments(self.line, SEGMENT))


@pytest.fixture
def stored() -> Stored:
    return Stored()


def test_segments_come_back_as_they_were_and_the_last_is_filled_with_zeros(stored: Stored) -> None:
    wal = stored.cluster.wal[1]
    assert list(stored.read().values()) == [
        wal[:64],
        wal[64:128],
        wal[128:192],
        wal[192:] + bytes(56),
    ]


def test_names_of_segments_are_postgresqls() -> None:
    assert segment_name(3, 0x2A_5D000028, 16 << 20) == "000000030000002A0000005D"
    assert segment_name(1, 0x1_FF000000, 16 << 20) == "0000000100000001000000FF"


def test_stock_tools_read_an_object(stored: Stored) -> None:
    body = next(iter(stored.bucket.objects.values()))
    plain = zstandard.ZstdDecompressor().decompress(pyrage.decrypt(body, [OWNER]))
    assert plain == stored.cluster.wal[1][:64]


def test_a_flipped_bit_is_found_and_the_object_is_named(stored: Stored) -> None:
    for key, body in list(stored.bucket.objects.items()):
        stored.bucket.objects[key] = body[:-5] + bytes([body[-5] ^ 1]) + body[-4:]
        with pytest.raises(Damaged, match=key.replace(".", r"\.")):
            stored.read()
        stored.bucket.objects[key] = body


def test_a_cut_object_is_found(stored: Stored) -> None:
    key, body = next(iter(stored.bucket.objects.items()))
    for size in (0, 10, len(body) - 1):
        stored.bucket.objects[key] = body[:size]
        with pytest.raises(Damaged):
            stored.read()


def test_two_objects_that_were_swapped_are_found(stored: Stored) -> None:
    first, second = sorted(stored.bucket.objects)[:2]
    objects = stored.bucket.objects
    objects[first], objects[second] = objects[second], objects[first]
    with pytest.raises(Damaged, match="its hash differs"):
        stored.read()


def test_an_object_that_is_deleted_while_it_is_read_is_named(stored: Stored) -> None:
    line = stored.line
    del stored.bucket.objects[line.objects[2].key]
    with pytest.raises(Damaged, match="not in the object store"):
        list(stored.reader.segments(line, SEGMENT))


def test_an_object_that_unpacks_to_more_than_its_name_says_is_not_unpacked(stored: Stored) -> None:
    one = stored.line.objects[0]
    bomb = zstandard.ZstdCompressor().compress(bytes(64 << 20))
    stored.bucket.objects[one.key] = pyrage.encrypt(bomb, [OWNER.to_public()])
    with pytest.raises(Damaged, match="67108864 bytes instead of 64"):
        stored.read()


def test_a_tail_is_listed_from_an_lsn_on_with_the_histories_and_no_object_before_it(
    stored: Stored,
) -> None:
    stored.cluster.promote(1, 150, 2)
    stored.cluster.write(100, 2)
    for history in stored.cluster.histories:
        stored.writer.put(history, b"history")
    for one in stored.cluster.stored(2, 128, 192, 240):
        stored.put(one)

    def tail(*timelines: int, start: int) -> tuple[list[tuple[int, int]], int]:
        bucket = cast(Any, stored.bucket)
        found = list_tail(
            bucket, "test", SIGNERS, system=SYSTEM, timelines=timelines, start=start
        )  # fmt: skip
        objects = found.objects.get(SYSTEM, [])
        return [(one.timeline, one.start) for one in objects], len(found.histories.get(SYSTEM, []))

    assert tail(1, 2, start=128) == ([(1, 128), (1, 150), (1, 192), (2, 128), (2, 192)], 1)
    assert tail(2, start=192) == ([(2, 192)], 1)
    assert tail(1, start=SEGMENT * 4) == ([], 0)
    assert newest_start(cast(Any, stored.bucket), "test", SYSTEM, (1, 2)) == 192
    assert newest_start(cast(Any, stored.bucket), "test", SYSTEM, (3,)) is None


def test_a_foreign_object_is_listed_as_refused_and_does_not_count(stored: Stored) -> None:
    stored.bucket.objects["test/postgresql/wal/x"] = b"?"
    forged = stored.cluster.stored(1, 192, 199)[0].signed(Ed25519PrivateKey.generate())
    stored.bucket.objects[forged] = b"?"
    listing = list_wal(cast(Any, stored.bucket), "test", SIGNERS)
    assert set(listing.refused) == {"test/postgresql/wal/x", forged}
    assert len(listing.objects[SYSTEM]) == 5


def test_a_line_and_its_histories_are_saved_for_recovery(stored: Stored, tmp_path: Path) -> None:
    text = b"1\t0/96\tno recovery target specified\n"
    history = TimelineHistory("test", SYSTEM, 2, 1, 150, hashlib.sha256(text).hexdigest(), NOON)
    history = replace(history, key=stored.writer.put(history, text))
    stored.reader.save(stored.line, [history], SEGMENT, tmp_path)
    assert (tmp_path / "00000002.history").read_bytes() == text
    assert len(list(tmp_path.iterdir())) == 5
    stored.bucket.objects[history.key] = stored.bucket.objects[stored.line.objects[0].key]
    with pytest.raises(Damaged, match="its hash differs"):
        stored.reader.history(history)


def test_a_recipient_that_is_no_key_is_refused_before_anything_is_stored() -> None:
    with pytest.raises(PermanentError, match="not a public key"):
        WalWriter(cast(Any, Bucket()), ["age1nothing"], KEY)
