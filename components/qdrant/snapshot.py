"""One shard's snapshot: made by a peer, downloaded, checked, removed from the peer.

The snapshot that is written first (not the one that is streamed) comes with a SHA-256, and what comes is compared
with it. A stream has none, and a failure in its midst is only logged in the server: the body just ends, with status
200 (qdrant/qdrant lib/collection/src/shards/shard_holder). The tar's end is looked at in any case.
A client that accepts compression gets every answer compressed, a file too (src/actix/mod.rs: `Compress::default()`),
and httpx accepts it by default: so a download says that it takes the bytes as they are.
The peer goes on making a snapshot after the client has gone (src/actix/helpers.rs: `time_or_accept`), and names it by
the second in which it began (shard_holder/mod.rs: `create_shard_snapshot`): by that it is recognised later.
https://qdrant.tech/documentation/snapshots/
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

from archive.cleanup_journal import CleanupJournal, ShardSnapshot
from cluster.command import CANCELLATION
from components.access import Access, Endpoint
from components.qdrant.client import Gone, Refused, call, get, headers, path_of
from config.urls import path_part
from errors import TemporaryError

PIECE_BYTES = 1 << 20
TAR_END = b"\0" * 1024
UNCOMPRESSED = {"accept-encoding": "identity"}
BEGUN = re.compile(r"-(\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d)\.snapshot$")
BEGUN_FORMAT = "%Y-%m-%d-%H-%M-%S"
# From our question to the second in the snapshot's name: the peer names it before it waits for anything.
NAMED_WITHIN = timedelta(seconds=10)
# How long the making of one may take, all in all: terabytes at the pace of a slow disk.
MAKING = timedelta(hours=12)
POLL_SECONDS = 5.0


class NotTaken(TemporaryError):
    """A shard gave no snapshot; others may."""


@dataclass(frozen=True)
class Shard:
    """A replica that is read.

    Attributes:
        collection: its name.
        number: of the shard.
        peer: where the replica is.
        key: of a custom sharding; "" without.
    """

    collection: str
    number: int
    peer: Endpoint
    key: str = ""

    @property
    def path(self) -> str:
        """Of its snapshots."""
        return snapshots_path(self.collection, self.number)

    def __str__(self) -> str:
        return f"{self.collection}, shard {self.number} on {self.peer.member}"


@dataclass(frozen=True)
class Made:
    """A snapshot that lies on its peer.

    Attributes:
        shard: of which.
        name: of the file.
        size: bytes.
        checksum: SHA-256, in hexadecimal; "" if the peer gives none.
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
    """Have a snapshot made, and remove it afterwards.

    Args:
        access: the way in.
        shard: which one.
        cleanup: where it is written down in the meantime.
        limit: seconds to wait for the peer's answer; one that takes longer is waited for by the peer's list.

    Raises:
        NotTaken: the peer did not make one.
    """
    known = tuple(str(entry["name"]) for entry in get(access, shard.peer, shard.path))
    held = ShardSnapshot(
        peer=shard.peer.member,
        collection=shard.collection,
        shard=shard.number,
        known=known,
        asked=clock_of(access, shard.peer),
    )
    cleanup.hold(held)
    try:
        made = call(access, shard.peer, "POST", f"{shard.path}?wait=true", timeout=limit)
    except httpx.ReadTimeout:
        made = _awaited(access, shard, held)
    except Refused:
        cleanup.release(held)  # it made none
        raise
    try:
        yield Made(shard, made["name"], int(made["size"]), str(made.get("checksum") or ""))
    finally:
        if _removed(access, shard.peer, shard.path, made["name"]):
            cleanup.release(held)


def _awaited(access: Access, shard: Shard, held: ShardSnapshot) -> dict[str, Any]:
    """Wait for a snapshot that outlasts the question for it: it is listed once it is complete."""
    for _ in range(int(MAKING.total_seconds() / POLL_SECONDS)):
        listed = get(access, shard.peer, shard.path)
        mine = [entry for entry in listed if _is_ours(entry["name"], held)]
        if mine:
            made: dict[str, Any] = mine[0]
            return made
        CANCELLATION.sleep(POLL_SECONDS)
    raise NotTaken(
        f"{shard} did not create its snapshot within {MAKING.total_seconds() / 3600:.0f} h"
    )


def sweep(access: Access, peers: Mapping[str, Endpoint], cleanup: CleanupJournal) -> None:
    """Remove the snapshots that killed runs left on the peers; the note of one that may still come is kept.

    Args:
        access: the way in.
        peers: those that answer, by name.
        cleanup: with the notes.
    """
    for held in cleanup.earlier(ShardSnapshot):
        peer, path = peers.get(held.peer), snapshots_path(held.collection, held.shard)
        if peer is None:
            continue
        try:
            listed = [str(entry["name"]) for entry in get(access, peer, path)]
            mine = [name for name in listed if _is_ours(name, held)]
            late = clock_of(access, peer) - held.asked > MAKING
        except Gone:  # the collection is, or the shard has moved, and the snapshots with it
            mine, late = [], True
        except (httpx.HTTPError, Refused):
            continue
        removed = [_removed(access, peer, path, name) for name in mine]
        if all(removed) and (mine or late):
            cleanup.release(held)


def clock_of(access: Access, peer: Endpoint) -> datetime:
    """A peer's own clock: snapshots are named by it."""
    answer = access.http.get(f"http://{peer.url}/healthz")
    stated = answer.headers.get("date")
    return parsedate_to_datetime(stated).astimezone(UTC) if stated else datetime.now(UTC)


class Download:
    """A snapshot's bytes; iterate it once.

    Args:
        access: the way in.
        made: which one.
        stall: seconds without a byte after which it is given up.
    """

    def __init__(self, access: Access, made: Made, stall: float) -> None:
        self._access, self._made, self._stall = access, made, stall

    def __iter__(self) -> Iterator[bytes]:
        """The tar's bytes.

        Raises:
            NotTaken: it broke off, is short, or is not what was made.
        """
        made, shard = self._made, self._made.shard
        digest, size, end = hashlib.sha256(), 0, b""
        url = f"http://{shard.peer.url}{shard.path}/{path_part(made.name)}"
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
        if size != made.size or end != TAR_END:
            raise NotTaken(f"{shard} sent {size} of {made.size} bytes: its snapshot is truncated")
        if made.checksum and digest.hexdigest() != made.checksum:
            raise NotTaken(f"{shard} sent a snapshot other than the one it created: {made.name}")


def _is_ours(name: str, held: ShardSnapshot) -> bool:
    """Whether a snapshot is the one of a note: it was not there before, and was begun when that was written.

    Others make snapshots too, by hand or by a job of their own, and theirs must stay.
    """
    found = BEGUN.search(name)
    if name in held.known or found is None:
        return False
    begun = datetime.strptime(found[1], BEGUN_FORMAT).replace(tzinfo=UTC)
    return timedelta(seconds=-1) <= begun - held.asked <= NAMED_WITHIN


def _removed(access: Access, peer: Endpoint, path: str, name: str) -> bool:
    """Remove a snapshot; whether it is gone. It takes room, no more: if not, the next run tries again."""
    try:
        call(access, peer, "DELETE", f"{path}/{path_part(name)}?wait=true")
    except Gone:
        return True
    except (httpx.HTTPError, Refused):
        return False
    return True
