"""Checks that the tar of pg_basebackup is complete while it is stored.

The end of the stream is not enough: after a lost server the tar may still unpack. Its last member, `backup_manifest`,
lists every file with its size (https://www.postgresql.org/docs/18/backup-manifest-format.html), and all of them must
have arrived. The checksums of files are checked by pg_verifybackup when the backup is verified. The hash of the stream
shows that it was stored as it came.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from errors import TemporaryError

BLOCK = 512
MANIFEST = "backup_manifest"
WAL = re.compile(r"pg_wal/[0-9A-F]{24}")


class BaseTar:
    """Passes a tar on and records its members.

    Args:
        source: the stream.
    """

    def __init__(self, source: Iterable[bytes]) -> None:
        self._source = source
        self._sizes: dict[str, int] = {}
        self._manifest = bytearray()
        self._zeros = 0
        self._header = bytearray()
        self._name, self._left, self._padding = "", 0, 0
        self.manifest: dict[str, Any] = {}

    def __iter__(self) -> Iterator[bytes]:
        """The pieces, unchanged.

        Raises:
            TemporaryError: the tar is incomplete.
        """
        for piece in self._source:
            self._look(memoryview(piece))
            yield piece
        self._check()

    @property
    def manifest_bytes(self) -> bytes:
        """The file `backup_manifest`, which the next incremental backup needs."""
        return bytes(self._manifest)

    @property
    def reaches(self) -> tuple[int, str]:
        """Timeline and LSN at the end of the WAL that a restore needs.

        A standby reports its timeline late: `pg_control_checkpoint` shows a promotion only after the next restartpoint.
        """
        ranges = [
            (int(wal_range["Timeline"]), str(wal_range["End-LSN"]))
            for wal_range in self.manifest["WAL-Ranges"]
        ]
        return max(ranges)

    def _look(self, piece: memoryview) -> None:
        while piece:
            if self._left:
                count = min(len(piece), self._left)
                if self._name == MANIFEST:
                    self._manifest += piece[:count]
                self._left -= count
            elif self._padding:
                count = min(len(piece), self._padding)
                self._padding -= count
            else:
                count = min(len(piece), BLOCK - len(self._header))
                self._header += piece[:count]
                if len(self._header) == BLOCK:
                    self._open(bytes(self._header))
                    self._header.clear()
            piece = piece[count:]

    def _open(self, header: bytes) -> None:
        if not any(header):
            self._zeros += 1
            return
        prefix, name = (header[a:b].rstrip(b"\0").decode() for a, b in ((345, 500), (0, 100)))
        self._name = f"{prefix}/{name}" if prefix else name
        kind = header[156:157]
        size = _number(header[124:136]) if kind in (b"0", b"\0") else 0
        if kind in (b"0", b"\0"):
            self._sizes[self._name] = size
        self._left, self._padding = size, -size % BLOCK

    def _check(self) -> None:
        if self._left or self._header or self._zeros < 2:
            raise TemporaryError(f"the base backup's tar is truncated, in {self._name}")
        text = bytes(self._manifest)
        body, mark, claimed = text.rpartition(b'"Manifest-Checksum"')
        checksum = re.search(rb'"([0-9a-f]{64})"', claimed)
        if not mark or checksum is None or hashlib.sha256(body).hexdigest().encode() != checksum[1]:
            raise TemporaryError("the base backup has no valid backup_manifest")
        self.manifest = json.loads(text)
        for file in self.manifest["Files"]:
            path = file.get("Path") or bytes.fromhex(file["Encoded-Path"]).decode()
            if self._sizes.get(path) != file["Size"]:
                size = self._sizes.get(path, "nothing")
                raise TemporaryError(
                    f"the base backup lacks {path}: {size} instead of {file['Size']} bytes"
                )
        if not any(WAL.fullmatch(name) for name in self._sizes):
            raise TemporaryError("the base backup holds no WAL and cannot be restored without it")


def _number(field: bytes) -> int:
    """A size: octal digits, or binary for files of 8 GiB and more (GNU)."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    return int(field.rstrip(b"\0 ") or b"0", 8)
