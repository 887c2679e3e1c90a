"""Which versions the earlier sets of a chain have, for the next incremental one: readable without a private key.

One record a version: 16 bytes that name it (of SHA-256 over bucket, key, version id and ETag), 32 of its content, and 2
that say which set of the chain has the bytes. Names and contents cannot be read from it.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

NAME, CONTENT, SET = 16, 32, 2
RECORD = NAME + CONTENT + SET


class Index(Sequence[bytes]):
    """The records of a set, searched where they lie.

    Args:
        data: records in order.
        sets: ids of the chain's sets, to which the records refer by number.
    """

    def __init__(self, data: bytes = b"", sets: Sequence[str] = ()) -> None:
        self._data = data
        self._sets = list(sets)

    def __len__(self) -> int:
        return len(self._data) // RECORD

    def __getitem__(self, place: int) -> bytes:  # type: ignore[override]
        """Name of a record."""
        return self._data[place * RECORD : place * RECORD + NAME]

    def find(self, name: bytes) -> tuple[str, str] | None:
        """Set that has a version, and the SHA-256 of its content; None if none has."""
        place = bisect_left(self, name)
        if place == len(self) or self[place] != name:
            return None
        record = self._data[place * RECORD : (place + 1) * RECORD]
        content = record[NAME : NAME + CONTENT].hex()
        return self._sets[int.from_bytes(record[-SET:], "big")], content


def name_of(bucket: str, key: str, version: str, etag: str) -> bytes:
    """What a version is called in an index."""
    text = "\0".join((bucket, key, version, etag))
    return hashlib.sha256(text.encode()).digest()[:NAME]


def record(name: bytes, content: str, number: int) -> bytes:
    """One record."""
    return name + bytes.fromhex(content) + number.to_bytes(SET, "big")


def packed(records: Iterable[bytes]) -> Iterator[bytes]:
    """An index's bytes; 100 MB of memory a million records while they are sorted."""
    ordered = sorted(records)
    for start in range(0, len(ordered), 10_000):
        yield b"".join(ordered[start : start + 10_000])
