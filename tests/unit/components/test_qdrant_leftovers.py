"""A snapshot that could not be removed from its peer stays noted, and the next run removes it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from archive.leftovers import Leftovers
from components.qdrant import snapshot as module
from components.qdrant.client import Gone
from components.qdrant.snapshot import Shard, snapshot, sweep

PEER: Any = SimpleNamespace(member="qdrant-0")
SHARD = Shard("articles", 0, PEER)
NOTE = {"peer": "qdrant-0", "path": SHARD.path, "known": ["old"]}


class Peer:
    """What lies on a peer.

    Attributes:
        refuses: what its next DELETE ends with.
        collection: whether it is there.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names = ["old"]
        self.refuses: Exception | None = None
        self.collection = True
        self.held: list[Any] = []
        monkeypatch.setattr(module, "call", self.call)
        monkeypatch.setattr(module, "get", self.get)

    def get(self, *_: object) -> list[dict[str, str]]:
        if not self.collection:
            raise Gone("no such collection")
        return [{"name": name} for name in self.names]

    def call(self, _: object, __: object, method: str, path: str, **___: object) -> Any:
        if method == "POST":
            self.names.append("new")
            return {"name": "new", "size": 1}
        if self.refuses:
            raise self.refuses
        self.names.remove(path.rpartition("/")[2].partition("?")[0])
        return True

    def leftovers(self, *earlier: Any) -> Leftovers:
        self.held = list(earlier)

        def note(held: list[Any]) -> None:
            self.held = list(held)

        return Leftovers(earlier, note)


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Peer:
    return Peer(monkeypatch)


def take(left: Leftovers) -> None:
    access: Any = None
    with snapshot(access, SHARD, left, 1.0):
        pass


def test_a_snapshot_that_was_removed_is_forgotten(peer: Peer) -> None:
    take(peer.leftovers())
    assert (peer.names, peer.held) == (["old"], [])


@pytest.mark.parametrize("end", [httpx.ReadTimeout("slow"), RuntimeError("HTTP 500")])
def test_one_that_was_not_is_removed_by_the_next_run(end: Exception, peer: Peer) -> None:
    peer.refuses = end
    take(peer.leftovers())
    assert peer.held == [NOTE]
    access: Any = None
    sweep(access, {"qdrant-0": PEER}, peer.leftovers(NOTE))
    assert peer.held == [NOTE]  # nor this time
    peer.refuses = None
    sweep(access, {"qdrant-0": PEER}, peer.leftovers(NOTE))
    assert (peer.names, peer.held) == (["old"], [])


def test_those_of_a_peer_that_is_away_wait_and_those_of_a_lost_collection_are_gone(
    peer: Peer,
) -> None:
    access: Any = None
    sweep(access, {}, peer.leftovers(NOTE))
    assert peer.held == [NOTE]
    peer.collection = False
    sweep(access, {"qdrant-0": PEER}, peer.leftovers(NOTE))
    assert peer.held == []
