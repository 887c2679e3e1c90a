"""The index of versions lies unencrypted in the bucket: it tells nothing to somebody who tries contents."""

from __future__ import annotations

import hashlib

from components.minio.objects.index import RECORD, Index, hash_of, packed, record

CONTENT = hashlib.sha256(b"PIN 4711").hexdigest()
VERSION = ("cards", "pin.txt", "7f1c1d4e-6f0a-4c43-9a55-9f1f6f2e8a10", "etag")
OTHERS = [hash_of("cards", f"other-{n}", "v", "e") for n in range(100)]


def index() -> tuple[Index, bytes]:
    records = [record(other, "00" * 32, 0) for other in OTHERS]
    data = b"".join(packed([*records, record(hash_of(*VERSION), CONTENT, 1)]))
    return Index(data, ["full", "increment"]), data


def test_a_version_is_found_with_its_content_and_the_set_that_has_it() -> None:
    found, data = index()
    assert len(found) == len(data) // RECORD == 101
    assert found.find(hash_of(*VERSION)) == ("increment", CONTENT)
    assert all(found.find(other) == ("full", "00" * 32) for other in OTHERS)
    assert found.find(hash_of("cards", "pin.txt", "another version", "etag")) is None


def test_the_hash_of_a_content_is_not_in_it() -> None:
    _, data = index()
    assert bytes.fromhex(CONTENT) not in data
    assert bytes(32) not in data


def test_the_same_content_looks_different_in_each_version() -> None:
    same = {record(other, CONTENT, 0)[16:48] for other in OTHERS}
    assert len(same) == len(OTHERS)
