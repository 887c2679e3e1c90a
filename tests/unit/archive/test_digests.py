"""Digests lie encrypted in the backup: a value is not found by trial from what the manifest shows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyrage
import pytest

from archive.backup.digests import FORM, NAME, SEALED
from archive.backup.encryption import SUFFIX
from archive.backup.manifest import Manifest, Measure, read_manifest
from archive.backup.reader import Damaged, SetReader
from archive.backup.writer import SetWriter
from archive.object_store.store import Store
from components.digest import Digest
from operations.verify.comparison import compare

from .test_retention import KEY, SIGNERS, a_set

POOL = pyrage.x25519.Identity.generate()
TABLE = ("database shop", "table public.card")
PIN = 4711


class Objects(Store):
    """Objects in a dictionary."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self._lock = {}
        self._parts: dict[str, list[bytes]] = {}

    def put(self, key: str, body: bytes, *, only_new: bool = False) -> None:
        self.objects[key] = bytes(body)

    def read(self, key: str, version: str = "") -> Iterator[bytes]:
        yield self.objects[key]

    def begin(self, key: str) -> str:
        self._parts[key] = []
        return key

    def put_part(self, key: str, upload: str, number: int, body: bytes | bytearray) -> str:
        self._parts[key].append(bytes(body))
        return str(number)

    def complete(self, key: str, upload: str, etags: Any, size: int) -> None:
        self.objects[key] = b"".join(self._parts.pop(key))


def measure_of(pin: int) -> Measure:
    rows = Digest()
    rows.add_document({"pin": pin}, name="card")
    return rows.measure(*TABLE)


@pytest.fixture
def place(tmp_path: Path) -> tuple[Objects, Manifest]:
    store = Objects()
    recipients = (str(POOL.to_public()),)
    made = a_set(3, fingerprint=(measure_of(PIN),), recipients=recipients)
    writer = SetWriter(store, made.prefix, recipients, KEY, tmp_path)
    writer.add("card.dump", TABLE[0], "pg_dump custom", [str(PIN).encode()])
    writer.commit(made.model_copy(update={"artefacts": writer.artefacts}))
    return store, read_manifest(store.objects[made.own_key], made.own_key, SIGNERS)


@pytest.mark.parametrize("digest", ["", "0a" * 16, f"{'0a' * 16}/{'f' * 32}", "-123/45", SEALED])
def test_the_digests_of_every_engine_have_their_place(digest: str) -> None:
    assert Measure(unit="u", item="i", count=1, digest=digest, origin="source").digest == digest


def test_nothing_in_the_manifest_tells_one_value_from_another(
    place: tuple[Objects, Manifest],
) -> None:
    store, stored = place
    document = store.objects[stored.own_key].decode()
    (measure,) = stored.fingerprint
    assert (measure.count, measure.digest, measure.names) == (1, SEALED, {"card": SEALED})
    guess = measure_of(PIN)
    for told in (guess.digest, guess.names["card"], hashlib.sha256(str(PIN).encode()).hexdigest()):
        assert told not in document


def test_whoever_can_open_the_backup_has_the_digests(place: tuple[Objects, Manifest]) -> None:
    store, stored = place
    reader = SetReader(store, stored, str(POOL))
    assert reader.manifest.fingerprint == (measure_of(PIN),)
    assert reader.sha256("card.dump") == hashlib.sha256(str(PIN).encode()).hexdigest()
    assert compare(reader.manifest.fingerprint, {"": [measure_of(PIN)]}) == ()
    (other,) = compare(reader.manifest.fingerprint, {"": [measure_of(PIN + 1)]})
    assert "other card" in other.what


def test_a_manifest_that_was_not_opened_is_never_taken_for_equal(
    place: tuple[Objects, Manifest],
) -> None:
    _, stored = place
    assert compare(stored.fingerprint, {"": [measure_of(PIN)]})


def test_the_digests_are_read_and_checked_like_every_other_artefact(
    place: tuple[Objects, Manifest],
) -> None:
    store, stored = place
    reader = SetReader(store, stored, str(POOL))
    reader.read_rest()
    assert reader.whole == {stored.key(one) for one in stored.artefacts}
    assert [one.name for one in stored.artefacts if one.format == FORM] == [NAME + SUFFIX]
    body = bytearray(store.objects[stored.prefix + NAME + SUFFIX])
    body[-1] ^= 1
    store.objects[stored.prefix + NAME + SUFFIX] = bytes(body)
    with pytest.raises(Damaged):
        _ = SetReader(store, stored, str(POOL)).manifest


def test_an_artefact_with_other_plain_bytes_is_damaged(
    place: tuple[Objects, Manifest], tmp_path: Path
) -> None:
    store, stored = place
    writer = SetWriter(store, stored.prefix, stored.recipients, KEY, tmp_path)
    other = writer.add("card.dump", TABLE[0], "pg_dump custom", [b"4712"])
    swapped = other.model_copy(update={"plain_sha256": ""})
    artefacts = (swapped, *(one for one in stored.artefacts if one.name != other.name))
    reader = SetReader(store, stored.model_copy(update={"artefacts": artefacts}), str(POOL))
    with pytest.raises(Damaged, match="hash differs"):
        reader.read("card.dump")


def test_a_backup_of_an_earlier_version_has_its_digests_in_the_manifest() -> None:
    made = a_set(3, fingerprint=(measure_of(PIN),))
    old = read_manifest(made.signed(KEY), made.own_key, SIGNERS)
    assert SetReader(Objects(), old, str(POOL)).manifest.fingerprint == (measure_of(PIN),)


def test_a_name_that_is_no_unicode_keeps_its_digest(tmp_path: Path) -> None:
    store, recipients = Objects(), (str(POOL.to_public()),)
    odd = measure_of(PIN).model_copy(update={"unit": "bucket a\ud800b"})
    made = a_set(3, fingerprint=(odd,), recipients=recipients)
    SetWriter(store, made.prefix, recipients, KEY, tmp_path).commit(made)
    stored = read_manifest(store.objects[made.own_key], made.own_key, SIGNERS)
    assert SetReader(store, stored, str(POOL)).manifest.fingerprint == (odd,)
