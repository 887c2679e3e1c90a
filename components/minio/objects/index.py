"""The index of versions that the backups of a chain hold. The next incremental backup reads it without a private key.

A record has 50 bytes: 16 that identify the version, 32 with the masked SHA-256 of its content, and 2 with the number of
the backup in the chain that has the bytes.

The SHA-512 of bucket, key, version id and ETag gives the 16 bytes and the 32 bytes of the mask (by XOR). The version id
is random, so nobody can find names or contents by trying candidates.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

NAME, CONTENT, SET = 16, 32, 2
RECORD = NAME + CONTENT + SET


class Index(Sequence[bytes]):
    """The records of a backup, searched without unpacking them.

    Args:
        data: the sorted records.
        sets: ids of the chain's backups; records refer to them by number.
    """

    def __init__(self, data: bytes = b"", sets: Sequence[str] = ()) -> None:
        self._data = data
        self._sets = list(sets)

    def __len__(self) -> int:
        return len(self._data) // RECORD

    def __getitem__(self, position: int) -> bytes:  # type: ignore[override]
        """The 16 bytes that identify the version of a record."""
        return self._data[position * RECORD : position * RECORD + NAME]

    def find(self, version: bytes) -> tuple[str, str] | None:
        """The id of the backup that has a version, and the SHA-256 of its content; None if no backup has it.

        Args:
            version: its `hash_of`.
        """
        name, mask = version[:NAME], version[NAME:]
        position = bisect_left(self, name)
        if position == len(self) or self[position] != name:
            return None
        record = self._data[position * RECORD : (position + 1) * RECORD]
        content = _crossed(record[NAME : NAME + CONTENT], mask).hex()
        return self._sets[int.from_bytes(record[-SET:], "big")], content


def hash_of(bucket: str, key: str, version: str, etag: str) -> bytes:
    """The hash of a version: 16 bytes that identify it in an index, then the 32 bytes of the mask."""
    text = "\0".join((bucket, key, version, etag))
    return hashlib.sha512(text.encode()).digest()[: NAME + CONTENT]


def record(version: bytes, content: str, number: int) -> bytes:
    """One record.

    Args:
        version: its `hash_of`.
        content: SHA-256 of its bytes, in hexadecimal.
        number: number of the backup that has the bytes.
    """
    crossed = _crossed(bytes.fromhex(content), version[NAME:])
    return version[:NAME] + crossed + number.to_bytes(SET, "big")


def packed(records: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of an index. Sorting a million records needs 100 MB of memory."""
    ordered = sorted(records)
    for start in range(0, len(ordered), 10_000):
        yield b"".join(ordered[start : start + 10_000])


def _crossed(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
