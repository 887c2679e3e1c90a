"""A snapshot comes as the bytes that were made, though the server compresses whatever a client lets it."""

from __future__ import annotations

import gzip
import hashlib
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from components.access import Endpoint
from components.qdrant.collections.snapshot import TAR_END, Download, Made, Shard
from errors import TemporaryError

PEER = Endpoint("qdrant-0", "10.0.0.1", 6333, "10.0.0.1", "node")
SHARD = Shard("articles", 0, PEER)
TAR = b"bytes that compress well " * 4000 + TAR_END


def served(request: httpx.Request) -> httpx.Response:
    """As the server's `Compress` does (qdrant/qdrant src/actix/mod.rs)."""
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return httpx.Response(200, content=iter([TAR]))
    small = iter([gzip.compress(TAR)])
    return httpx.Response(200, content=small, headers={"content-encoding": "gzip"})


def download(size: int = len(TAR), checksum: str = hashlib.sha256(TAR).hexdigest()) -> bytes:
    access: Any = SimpleNamespace(
        http=httpx.Client(transport=httpx.MockTransport(served)),
        timeout_seconds=1.0,
        secret=lambda name, key: "key",
    )
    made = Made(SHARD, "one.snapshot", size, checksum)
    return b"".join(Download(access, made, stall=1.0))


def test_a_download_has_the_size_and_the_checksum_of_the_snapshot() -> None:
    assert download() == TAR


def test_a_snapshot_that_is_cut_or_is_another_one_is_refused() -> None:
    with pytest.raises(TemporaryError, match="is truncated"):
        download(size=len(TAR) + 1)
    with pytest.raises(TemporaryError, match="other than the one it created"):
        download(checksum="0" * 64)
