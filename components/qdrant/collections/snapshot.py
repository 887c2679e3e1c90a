"""The snapshot of one shard: created by a peer, downloaded, checked, removed from the peer.

The snapshot is first written to the peer's disk, because then it has a SHA-256. A streamed snapshot has none, and a
failure during the stream is only logged on the server: the body ends early with status 200 (qdrant/qdrant
lib/collection/src/shards/shard_holder). The end of the tar is checked as well.

Qdrant compresses every answer, even files, for clients that accept it (src/actix/mod.rs: `Compress::default()`), and
httpx accepts it by default. So a download requests uncompressed bytes.

A peer finishes a snapshot even if the client has gone (src/actix/helpers.rs: `time_or_accept`). It names the snapshot
by the second in which it began (shard_holder/mod.rs: `create_shard_snapshot`). Leftover snapshots are recognised by
that name. https://qdrant.tech/documentation/snapshots/
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from archive.backup.cleanup_journal import CleanupJournal, ShardSnapshot
from cluster.command import CANCELLATION
from components.access import Access, Endpoint
from components.qdrant.client import Gone, Refused, call, get, headers, path_of
from config.text.urls import path_part
from errors import TemporaryError

PIECE_BYTES = 1 << 20
TAR_END = b"\0" * 1024
UNCOMPRESSED = {"accept-encoding": "identity"}
BEGUN = re.compile(r"-(\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d)\.snapshot$")
BEGUN_FORMAT = "%Y-%m-%d-%H-%M-%S"
# Longest time between the request and the second in the snapshot's name: the peer names it at once.
NAMED_WITHIN = timedelta(seconds=10)
# Longest time to create a snapshot: terabytes on a slow disk.
MAKING = timedelta(hours=12)
POLL_SECONDS = 5.0


class NotTaken(TemporaryError):
    """A shard could not be stored. Other shards may succeed."""


@dataclass(frozen=True)
class Shard:
    """The replica of a shard that a backup reads.

    Attributes:
        collection: name of the collection.
        number: number of the shard.
        peer: the peer that has the replica.
        key: shard key; "" without custom sharding.
    """

    collection: str
    number: int
    peer: Endpoint
    key: str = ""

    @property
    def path(self) -> str:
        """Path of its snapshots."""
        return snapshots_path(self.collection, self.number)

    def __str__(self) -> str:
        return f"{self.collection}, shard {self.number} on {self.peer.member}"


@dataclass(frozen=True)
class Made:
    """A snapshot on its peer's disk.

    Attributes:
        shard: its shard.
        name: name of the file.
        size: bytes.
        checksum: SHA-256, in hexadecimal; "" if the peer returns none.
    """

    shard: Shard
    name: str
    size: int
    checksum: str


def snapshots_path(collection: str, shard: int) -> str:
    """Path of the snapshots of a shard."""
    return f"{path_of(collection)}/shards/{shard}/snapshots"


@contextmanager
def snapshot(access: Access, shard: Shard, cleanup: CleanupJournal, limit: float) -> Iterator[Made]:
    """Create a snapshot, and remove it afterwards.

    Args:
        access: addresses and credentials.
        shard: the shard.
        cleanup: records the snapshot until it is removed.
        limit: seconds to wait for the peer's answer; after that the peer's list of snapshots is polled.

    Raises:
        NotTaken: the peer did not create a snapshot.
    """
    existing = tuple(str(entry["name"]) for entry in get(access, shard.peer, shard.path))
    note = ShardSnapshot(
        peer=shard.peer.member,
        collection=shard.collection,
        shard=shard.number,
        known=existing,
        asked=clock_of(access, shard.peer),
    )
    cleanup.hold(note)
    try:
        created = call(access, shard.peer, "POST", f"{shard.path}?wait=true", timeout=limit)
    except httpx.ReadTimeout:
        created = _awaited(access, shard, note)
    except Refused:
        cleanup.release(note)  # it made none
        raise
    try:
        yield Made(shard, created["name"], int(created["size"]), str(created.get("checksum") or ""))
    finally:
        if _removed(access, shard.peer, shard.path, created["name"]):
            cleanup.release(note)


def _awaited(access: Access, shard: Shard, note: ShardSnapshot) -> dict[str, Any]:
    """Wait for a snapshot that takes longer than its request. It is listed when it is complete."""
    for _ in range(int(MAKING.total_seconds() / POLL_SECONDS)):
        listed = get(access, shard.peer, shard.path)
        own = [entry for entry in listed if _is_ours(entry["name"], note)]
        if own:
            created: dict[str, Any] = own[0]
            return created
        CANCELLATION.sleep(POLL_SECONDS)
    raise NotTaken(
        f"{shard} did not create its snapshot within {MAKING.total_seconds() / 3600:.0f} h"
    )


def sweep(access: Access, peers: Mapping[str, Endpoint], cleanup: CleanupJournal) -> None:
    """Remove snapshots of killed runs from the peers. An entry is kept while its snapshot may still appear.

    Args:
        access: addresses and credentials.
        peers: name → peer, for peers that answer.
        cleanup: has the entries of killed runs.
    """
    for note in cleanup.earlier(ShardSnapshot):
        peer, path = peers.get(note.peer), snapshots_path(note.collection, note.shard)
        if peer is None:
            continue
        try:
            listed = [str(entry["name"]) for entry in get(access, peer, path)]
            own = [name for name in listed if _is_ours(name, note)]
            expired = clock_of(access, peer) - note.asked > MAKING
        except (
            Gone
        ):  # the collection was dropped or the shard has moved; its snapshots are gone too
            own, expired = [], True
        except (httpx.HTTPError, Refused):
            continue
        removed = [_removed(access, peer, path, name) for name in own]
        if all(removed) and (own or expired):
            cleanup.release(note)


def clock_of(access: Access, peer: Endpoint) -> datetime:
    """A peer's own clock, which is used in the names of snapshots."""
    answer = access.http.get(f"http://{peer.url}/healthz")
    stated = answer.headers.get("date")
    return parsedate_to_datetime(stated).astimezone(UTC) if stated else datetime.now(UTC)


class Download:
    """A snapshot's bytes; iterate it once.

    Args:
        access: addresses and credentials.
        created: the snapshot.
        stall: seconds without a byte until the download fails.
    """

    def __init__(self, access: Access, created: Made, stall: float) -> None:
        self._access, self._made, self._stall = access, created, stall

    def __iter__(self) -> Iterator[bytes]:
        """The tar's bytes.

        Raises:
            NotTaken: the download was interrupted, is too short, or differs from the snapshot.
        """
        created, shard = self._made, self._made.shard
        digest, size, end = hashlib.sha256(), 0, b""
        url = f"http://{shard.peer.url}{shard.path}/{path_part(created.name)}"
        limits = httpx.Timeout(self._stall, connect=self._access.timeout_seconds)
        try:
            with self._access.http.stream(
                "GET", url, headers={**headers(self._access), **UNCOMPRESSED}, timeout=limits
            ) as answer:
                if answer.status_code != 200:
                    raise NotTaken(f"{shard} did not send its snapshot: HTTP {answer.status_code}")
                for piece in answer.iter_raw(PIECE_BYTES):
                    digest.update(piece)
                    size += len(piece)
                    end = (end + piece)[-len(TAR_END) :]
                    yield piece
        except httpx.HTTPError as exc:
            raise NotTaken(f"{shard} ended the transfer: {exc}") from exc
        if size != created.size or end != TAR_END:
            raise NotTaken(
                f"{shard} sent {size} of {created.size} bytes: its snapshot is truncated"
            )
        if created.checksum and digest.hexdigest() != created.checksum:
            raise NotTaken(f"{shard} sent a snapshot other than the one it created: {created.name}")


def _is_ours(name: str, note: ShardSnapshot) -> bool:
    """Whether a snapshot belongs to an entry of the journal: it is new, and began when the entry was written.

    Snapshots that others created must be kept.
    """
    match = BEGUN.search(name)
    if name in note.known or match is None:
        return False
    begun = datetime.strptime(match[1], BEGUN_FORMAT).replace(tzinfo=UTC)
    return timedelta(seconds=-1) <= begun - note.asked <= NAMED_WITHIN


def _removed(access: Access, peer: Endpoint, path: str, name: str) -> bool:
    """Remove a snapshot. Returns whether it was removed; if not, the next run tries again."""
    try:
        call(access, peer, "DELETE", f"{path}/{path_part(name)}?wait=true")
    except Gone:
        return True
    except (httpx.HTTPError, Refused):
        return False
    return True
