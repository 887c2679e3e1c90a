"""A bucket in memory: as much of `archive.object_store.store.Store` as catalogue, evidence and locks ask."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from archive.bounds import MANIFEST_BYTES
from archive.object_store.entries import Entry
from archive.object_store.store import Missing
from errors import TemporaryError


class Bucket:
    """Objects by key.

    Args:
        stored: when all of them were stored.

    Attributes:
        objects: key → bytes.
        away: whether the store takes nothing.
    """

    def __init__(self, stored: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.objects: dict[str, bytes] = {}
        self.away = False
        self._stored = stored

    def put(self, key: str, body: bytes, **_: Any) -> None:
        if self.away:
            raise TemporaryError("the store is away")
        self.objects[key] = bytes(body)

    def get(self, key: str, limit: int = MANIFEST_BYTES, version: str = "") -> bytes:
        if key not in self.objects:
            raise Missing(key)
        return self.objects[key]

    def describe(self, key: str) -> tuple[int, str]:
        return len(self.get(key)), "etag"

    def list(self, prefix: str, after: str = "") -> list[Entry]:
        keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        return [Entry(key, len(self.objects[key]), self._stored) for key in keys]

    def begin(self, key: str) -> str:
        self.objects[key] = b""
        return key

    def put_part(self, key: str, upload: str, number: int, content: Any) -> str:
        self.objects[key] += bytes(content)
        return str(number)

    def complete(self, *_: Any) -> None:
        """It is there already."""
