"""A few bytes that unpack to many cost a message: neither memory nor the disk they would be written to."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Iterator
from typing import Any, cast

import pyrage
import pytest
import zstandard

from archive.backup.manifest import Artefact, Manifest
from archive.backup.reader import Damaged, SetReader
from archive.object_store.store import SMALL_BYTES, Store
from errors import PermanentError

from .test_retention import a_set

BOMB_BYTES = 256 << 20
PROMISED = 1 << 20
IDENTITY = pyrage.x25519.Identity.generate()


class Objects:
    """A store that holds one object."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def read(self, key: str, version: str = "") -> Iterator[bytes]:
        yield self.body


class Disk:
    """Counts what is written to it."""

    def __init__(self) -> None:
        self.written = 0

    def write(self, data: bytes, /) -> None:
        self.written += len(data)


def bomb() -> bytes:
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(BOMB_BYTES >> 20))
    sealed: bytes = pyrage.encrypt(packed + packer.flush(), [IDENTITY.to_public()])
    return sealed


def promising(body: bytes, *, sealed: bool) -> Manifest:
    digest = hashlib.sha256(body).hexdigest()
    artefact = Artefact(
        name="base.tar.zst.age", unit="all databases", format="tar", plain_size=PROMISED, plain_sha256=digest,
        stored_size=len(body), stored_sha256=digest, part_size=1, sealed=sealed,
    )  # fmt: skip
    return a_set(3, artefacts=(artefact,))


@pytest.mark.parametrize("sealed", [True, False])
def test_no_more_is_written_than_the_manifest_promises(sealed: bool) -> None:
    body = bomb() if sealed else bytes(2 * PROMISED)
    reader = SetReader(cast(Any, Objects(body)), promising(body, sealed=sealed), str(IDENTITY))
    disk = Disk()
    with pytest.raises(Damaged, match="larger than the 1048576 bytes in its manifest"):
        reader.write("base.tar.zst.age", disk)
    assert disk.written <= PROMISED


def test_unpacking_takes_no_more_memory_than_a_few_blocks() -> None:
    body = bomb()
    assert len(body) < 1 << 20
    reader = SetReader(cast(Any, Objects(body)), promising(body, sealed=True), str(IDENTITY))
    tracemalloc.start()
    try:
        with pytest.raises(Damaged):
            reader.write("base.tar.zst.age", Disk())
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_of_an_object_that_is_too_large_to_be_a_manifest_no_more_is_read() -> None:
    class Endless(Store):
        pieces = 0

        def __init__(self) -> None:
            self.bucket = "b"

        def where(self, key: str) -> str:
            return key

        def read(self, key: str, version: str = "") -> Iterator[bytes]:
            while True:
                self.pieces += 1
                yield bytes(1 << 20)

    store = Endless()
    with pytest.raises(PermanentError, match="it is not read"):
        store.get("production/redis/x/manifest.json")
    assert store.pieces <= SMALL_BYTES // (1 << 20) + 1
