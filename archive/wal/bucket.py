"""Stores WAL in the bucket, lists it, and reads it back as segment files, each byte compared with what was signed.

Every object is one request of its own: zstd, then age, as the artefacts of a backup. `age -d -i KEY | zstd -d` of the
objects of a segment, joined in the order of their names, is the segment's file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyrage
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from archive.backup.encryption import LEVEL, public_keys
from archive.backup.reader import Damaged
from archive.object_store.store import Missing, Store
from archive.wal.coverage import Line, Wal
from archive.wal.names import (
    TimelineHistory,
    WalObject,
    lsn_text,
    read_name,
    timeline_folder,
    wal_prefix,
)
from config.sections.backups import BackupSigner
from errors import PermanentError

# Incompressible bytes grow by 3 bytes in 128 KiB (zstd) and 16 in 64 KiB (age), behind a header for each recipient.
OVERHEAD_BYTES = 64 << 10
START = re.compile("([0-9A-F]{16})-")  # how a key goes on behind its timeline's folder
HISTORY_BYTES = 1 << 20


@dataclass
class WalListing:
    """The WAL in an environment's part of the bucket.

    Attributes:
        objects: system identifier → its WAL.
        histories: system identifier → its timeline history files.
        refused: key → why it does not count.
    """

    objects: dict[str, list[WalObject]] = field(default_factory=dict)
    histories: dict[str, list[TimelineHistory]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    _wal: dict[str, Wal] = field(default_factory=dict, repr=False, compare=False)

    def of(self, system: str) -> Wal:
        """The WAL of one database cluster."""
        if system not in self._wal:
            self._wal[system] = Wal(self.objects.get(system, ()), self.histories.get(system, ()))
        return self._wal[system]

    def add(self, key: str, environment: str, signers: Collection[BackupSigner]) -> None:
        """Note an object by its key."""
        try:
            one = read_name(key, environment, signers)
        except PermanentError as exc:
            self.refused[key] = str(exc)
            return
        self._wal.pop(one.system, None)
        if isinstance(one, WalObject):
            self.objects.setdefault(one.system, []).append(one)
        else:
            self.histories.setdefault(one.system, []).append(one)


def list_wal(
    store: Store, environment: str, signers: Collection[BackupSigner], system: str = ""
) -> WalListing:
    """List stored WAL; no object is read.

    Args:
        store: the bucket.
        environment: name.
        signers: trusted signers.
        system: system identifier; of all database clusters if left out.

    Raises:
        TemporaryError, PermanentError: the bucket cannot be listed.
    """
    found = WalListing()
    for entry in store.list(wal_prefix(environment) + (f"{system}/" if system else "")):
        found.add(entry.key, environment, signers)
    return found


def list_tail(
    store: Store,
    environment: str,
    signers: Collection[BackupSigner],
    *,
    system: str,
    timelines: Iterable[int],
    start: int,
) -> WalListing:
    """List the WAL of some timelines from an LSN on, with their histories: a few objects, whatever is stored in all.

    Args:
        store: the bucket.
        environment: name.
        signers: trusted signers.
        system: system identifier.
        timelines: whose WAL is listed.
        start: objects that begin before it are left out.

    Raises:
        TemporaryError, PermanentError: the bucket cannot be listed.
    """
    found = WalListing()
    for timeline in sorted(timelines):
        folder = timeline_folder(environment, system, timeline)
        for entry in store.list(folder, f"{folder}{start:016X}"):
            found.add(entry.key, environment, signers)
    return found


def newest_start(
    store: Store, environment: str, system: str, timelines: Iterable[int]
) -> int | None:
    """The LSN at which the newest object of some timelines begins, by its unchecked name; None without one.

    Raises:
        TemporaryError, PermanentError: the bucket cannot be listed.
    """
    newest = None
    for timeline in timelines:
        folder = timeline_folder(environment, system, timeline)
        for entry in store.list(folder):
            if start := START.match(entry.key, len(folder)):
                newest = max(newest or 0, int(start[1], 16))
    return newest


class WalWriter:
    """Stores WAL: compressed, encrypted, signed.

    Args:
        store: the bucket.
        recipients: age public keys.
        signing_key: the backup worker's.

    Raises:
        PermanentError: a recipient is not an age key.
    """

    def __init__(
        self, store: Store, recipients: Sequence[str], signing_key: Ed25519PrivateKey
    ) -> None:
        self._store, self._key = store, signing_key
        self._recipients = public_keys(recipients)
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)

    def put(self, one: WalObject | TimelineHistory, plain: bytes) -> str:
        """Store an object; returns its key.

        Args:
            one: what is said of it.
            plain: its bytes.

        Raises:
            PermanentError: the store refuses.
            TemporaryError: the store did not answer; the object may be stored nevertheless.
        """
        key = one.signed(self._key)
        packed = self._compressor.compress(plain)
        self._store.put(key, pyrage.encrypt(packed, self._recipients))
        return key


class WalReader:
    """Reads stored WAL.

    Args:
        store: the bucket.
        identity: age private key.
    """

    def __init__(self, store: Store, identity: str) -> None:
        self._store, self._identity = store, identity

    def segments(self, line: Line, size: int) -> Iterator[tuple[str, bytes]]:
        """Read a line as segment files: name and content of each. The last one is filled with zeros.

        Args:
            line: that begins at a segment boundary.
            size: of a segment, bytes.

        Raises:
            Damaged: an object does not exist, or is not what was signed.
            TemporaryError: the store does not answer.
        """
        segment = bytearray()
        digest = hashlib.sha256()
        for one in line.objects:
            if one.start % size == 0:
                if segment:
                    raise Damaged(f"the segment before {lsn_text(one.start)} is not complete")
                digest = hashlib.sha256()
            piece = self._read(one, one.size)
            segment += piece
            digest.update(piece)
            if digest.hexdigest() != one.through:
                raise Damaged(f"{one.key} is not what was stored: its hash differs")
            if one.end % size == 0:
                yield segment_name(one.timeline, one.start, size), bytes(segment)
                segment.clear()
        if segment:
            last = line.objects[-1]
            yield segment_name(last.timeline, last.start, size), bytes(segment).ljust(size, b"\0")

    def history(self, one: TimelineHistory) -> tuple[str, bytes]:
        """Read a timeline history file: its name and its content.

        Raises:
            Damaged: the object does not exist, or is not what was signed.
            TemporaryError: the store does not answer.
        """
        plain = self._read(one, None)
        if hashlib.sha256(plain).hexdigest() != one.sha256:
            raise Damaged(f"{one.key} is not what was stored: its hash differs")
        return f"{one.timeline:08X}.history", plain

    def save(
        self, line: Line, histories: Sequence[TimelineHistory], size: int, directory: Path
    ) -> None:
        """Write a line's segment files and history files into a directory.

        Raises:
            Damaged: an object does not exist, or is not what was signed; the directory must not be used.
            TemporaryError: the store does not answer.
        """
        files = [*map(self.history, histories)]
        for name, content in files:
            (directory / name).write_bytes(content)
        for name, content in self.segments(line, size):
            (directory / name).write_bytes(content)

    def _read(self, one: WalObject | TimelineHistory, size: int | None) -> bytes:
        most = HISTORY_BYTES if size is None else size
        try:
            stored = self._store.get(one.key, most + OVERHEAD_BYTES)
            packed = pyrage.decrypt(stored, [pyrage.x25519.Identity.from_str(self._identity)])
            promised = zstandard.frame_content_size(packed)
            if promised != size and (size is not None or not 0 <= promised <= most):
                raise Damaged(f"{one.key} holds {promised} bytes instead of {most}")
            return bytes(zstandard.ZstdDecompressor().decompress(packed))
        except Missing as exc:
            raise Damaged(f"{one.key} is not in the object store") from exc
        except (pyrage.DecryptError, zstandard.ZstdError) as exc:
            raise Damaged(f"{one.key} cannot be decrypted: {exc}") from exc


def segment_name(timeline: int, lsn: int, size: int) -> str:
    """File name of the segment with an LSN (`XLogFileName` in src/include/access/xlog_internal.h).

    Args:
        timeline: its number.
        lsn: any in the segment.
        size: of a segment, bytes.
    """
    number, per_id = lsn // size, (1 << 32) // size
    return f"{timeline:08X}{number // per_id:08X}{number % per_id:08X}"
