"""Which versions the earlier backups of a chain have, for the next incremental one: readable without a private key.

One record a version: 16 bytes that name it, 32 of its content, and 2 that say which set of the chain has the bytes.
The SHA-512 of bucket, key, version id and ETag gives the 16 bytes, and the 32 bytes that the SHA-256 of the content is
crossed with: without the version id, which is random, neither a name nor a content can be found by trial.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

NAME, CONTENT, SET = 16, 32, 2
RECORD = NAME + CONTENT + SET


class Index(Sequence[bytes]):
    """The records of a backup, searched where they lie.

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

    def find(self, version: bytes) -> tuple[str, str] | None:
        """Set that has a version, and the SHA-256 of its content; None if none has.

        Args:
            version: its `hash_of`.
        """
        name, mask = version[:NAME], version[NAME:]
        place = bisect_left(self, name)
        if place == len(self) or self[place] != name:
            return None
        record = self._data[place * RECORD : (place + 1) * RECORD]
        content = _crossed(record[NAME : NAME + CONTENT], mask).hex()
        return self._sets[int.from_bytes(record[-SET:], "big")], content


def hash_of(bucket: str, key: str, version: str, etag: str) -> bytes:
    """What a version is known by: its name in an index, then what its content is crossed with."""
    text = "\0".join((bucket, key, version, etag))
    return hashlib.sha512(text.encode()).digest()[: NAME + CONTENT]


def record(version: bytes, content: str, number: int) -> bytes:
    """One record.

    Args:
        version: its `hash_of`.
        content: SHA-256 of its bytes, in hexadecimal.
        number: of the backup that has them.
    """
    crossed = _crossed(bytes.fromhex(content), version[NAME:])
    return version[:NAME] + crossed + number.to_bytes(SET, "big")


def packed(records: Iterable[bytes]) -> Iterator[bytes]:
    """An index's bytes; 100 MB of memory a million records while they are sorted."""
    ordered = sorted(records)
    for start in range(0, len(ordered), 10_000):
        yield b"".join(ordered[start : start + 10_000])


def _crossed(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
