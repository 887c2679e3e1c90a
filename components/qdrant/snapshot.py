"""One shard's snapshot: made by a peer, downloaded, checked, removed from the peer.

The snapshot that is written first (not the one that is streamed) comes with a SHA-256, and what comes is compared
with it. A stream has none, and a failure in its midst is only logged in the server: the body just ends, with status
200 (qdrant/qdrant lib/collection/src/shards/shard_holder). The tar's end is looked at in any case.
https://qdrant.tech/documentation/snapshots/
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote

import httpx

from archive.leftovers import Leftovers
from components.access import Access, Endpoint
from components.qdrant.client import Gone, call, get, headers, path_of
from errors import TemporaryError

PIECE_BYTES = 1 << 20
TAR_END = b"\0" * 1024
PEER = "peer"  # by this its notes are found
UNCOMPRESSED = {"accept-encoding": "identity"}


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
        return f"{path_of(self.collection)}/shards/{self.number}/snapshots"


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


@contextmanager
def snapshot(access: Access, shard: Shard, leftovers: Leftovers, limit: float) -> Iterator[Made]:
    """Have a snapshot made, and remove it afterwards.

    Args:
        access: the way in.
        shard: which one.
        leftovers: where it is written down in the meantime.
        limit: seconds that making it may take.
    """
    known = [entry["name"] for entry in get(access, shard.peer, shard.path)]
    held = {PEER: shard.peer.member, "path": shard.path, "known": known}
    leftovers.hold(held)
    made = call(access, shard.peer, "POST", f"{shard.path}?wait=true", timeout=limit)
    try:
        yield Made(shard, made["name"], int(made["size"]), str(made.get("checksum") or ""))
    finally:
        if _removed(access, shard.peer, shard.path, made["name"]):
            leftovers.release(held)


def sweep(access: Access, peers: dict[str, Endpoint], leftovers: Leftovers) -> None:
    """Remove the snapshots that a killed run left on the peers; on one that is away they are left for the next run."""
    for held in leftovers.earlier(PEER):
        peer, path = peers.get(str(held[PEER])), str(held["path"])
        if peer is None:
            continue
        try:
            names = [entry["name"] for entry in get(access, peer, path)]
        except Gone:  # the collection is, or the shard has moved, and the snapshots with it
            names = []
        except (httpx.HTTPError, RuntimeError):
            continue
        mine = [name for name in names if name not in held["known"]]
        gone = [_removed(access, peer, path, name) for name in mine]
        if all(gone):
            leftovers.release(held)


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
            TemporaryError: it broke off, is short, or is not what was made.
        """
        made, shard = self._made, self._made.shard
        what = f"{shard.collection}, shard {shard.number} on {shard.peer.member}"
        digest, size, end = hashlib.sha256(), 0, b""
        url = f"http://{shard.peer.url}{shard.path}/{quote(made.name)}"
        limits = httpx.Timeout(self._stall, connect=self._access.timeout_seconds)
        try:
            with self._access.http.stream(
                "GET", url, headers={**headers(self._access), **UNCOMPRESSED}, timeout=limits
            ) as answer:
                if answer.status_code != 200:
                    raise TemporaryError(
                        f"{what} does not give its snapshot: HTTP {answer.status_code}"
                    )
                for piece in answer.iter_raw(PIECE_BYTES):
                    digest.update(piece)
                    size += len(piece)
                    end = (end + piece)[-len(TAR_END) :]
                    yield piece
        except httpx.HTTPError as exc:
            raise TemporaryError(f"{what} broke off: {exc}") from exc
        if size != made.size or end != TAR_END:
            raise TemporaryError(f"{what} sent {size} of {made.size} bytes: its snapshot is cut")
        if made.checksum and digest.hexdigest() != made.checksum:
            raise TemporaryError(f"{what} sent a snapshot that is not the one it made: {made.name}")


def _removed(access: Access, peer: Endpoint, path: str, name: str) -> bool:
    """Remove a snapshot; whether it is gone. It takes room, no more: if not, the next run tries again."""
    try:
        call(access, peer, "DELETE", f"{path}/{quote(name)}?wait=true")
    except Gone:
        return True
    except (httpx.HTTPError, RuntimeError):
        return False
    return True
