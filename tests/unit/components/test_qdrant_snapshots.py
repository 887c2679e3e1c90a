"""A snapshot is removed from its peer, whoever was killed and however long its making took; somebody else's stays."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from archive.backup.cleanup_journal import CleanupJournal, ShardSnapshot
from cluster.command import CANCELLATION
from components.access import Access
from components.qdrant.collections.snapshot import MAKING, Shard, snapshot, sweep
from tests.unit.components.qdrant_fake import Cluster, Refusal

PEER = 101


class Peer:
    """One peer with a collection of one shard, and the notes of a run."""

    def __init__(self) -> None:
        self.cluster = Cluster(1)
        self.cluster.make("articles", points=3)
        self.held: list[Any] = []
        self.access: Access = self.cluster.access()
        self.shard = Shard("articles", 0, self.access.endpoint("qdrant-0", 6333))

    @property
    def files(self) -> list[str]:
        return [name for files in self.cluster.snapshots.values() for name in files]

    def cleanup(self) -> CleanupJournal:
        def note(held: list[Any]) -> None:
            self.held = list(held)

        return CleanupJournal(list(self.held), note)

    def take(self) -> str:
        """Take a snapshot; returns its name."""
        with snapshot(self.access, self.shard, self.cleanup(), 1.0) as made:
            return made.name

    def sweep(self) -> None:
        sweep(self.access, {"qdrant-0": self.shard.peer}, self.cleanup())

    def somebody_makes_one(self, after: float = 0.0) -> str:
        self.cluster.now += timedelta(seconds=after)
        return str(self.cluster.make_snapshot("articles", PEER, 0)["name"])

    def is_slow(self) -> None:
        """Making outlasts the client's limit: the peer goes on by itself."""

        def slow(member: str, method: str, path: str) -> None:
            if method == "POST":
                raise httpx.ReadTimeout("slow")

        self.cluster.before = slow

    def refuses_removal(self, refusal: Exception) -> None:
        def refuse(member: str, method: str, path: str) -> None:
            if method == "DELETE":
                raise refusal

        self.cluster.before = refuse


@pytest.fixture
def peer() -> Peer:
    return Peer()


def test_a_snapshot_that_was_removed_is_forgotten(peer: Peer) -> None:
    peer.take()
    assert (peer.files, peer.held) == ([], [])


@pytest.mark.parametrize("end", [httpx.ReadTimeout("slow"), Refusal(500, "busy")])
def test_one_that_could_not_be_removed_is_removed_by_the_next_run(
    end: Exception, peer: Peer
) -> None:
    others = peer.somebody_makes_one()
    peer.cluster.now += timedelta(hours=1)
    peer.refuses_removal(end)
    peer.take()
    peer.sweep()
    assert (len(peer.files), len(peer.held)) == (2, 1)
    peer.cluster.before = lambda *_: None
    peer.sweep()
    assert (peer.files, peer.held) == ([others], [])


def test_a_snapshot_whose_making_outlasts_the_limit_is_waited_for_and_removed(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 200:
            peer.cluster.make_snapshot("articles", PEER, 0)

    monkeypatch.setattr(CANCELLATION, "sleep", sleep)
    peer.is_slow()
    assert peer.take().startswith("articles-shard-0-")
    assert (len(waits), peer.files, peer.held) == (200, [], [])


def test_the_note_of_a_killed_run_stays_until_its_snapshot_is_complete(peer: Peer) -> None:
    kill(peer)
    begun = peer.cluster.now
    peer.sweep()
    assert len(peer.held) == 1  # it may still come
    peer.cluster.make_snapshot("articles", PEER, 0)
    peer.cluster.now = begun + timedelta(hours=3)
    peer.sweep()
    assert (peer.files, peer.held) == ([], [])


def test_a_note_whose_snapshot_never_came_is_forgotten_in_the_end(peer: Peer) -> None:
    kill(peer)
    peer.cluster.now += MAKING + timedelta(minutes=1)
    peer.sweep()
    assert peer.held == []


def test_a_snapshot_that_somebody_else_made_after_the_note_stays(peer: Peer) -> None:
    kill(peer)
    mine, theirs = peer.somebody_makes_one(), peer.somebody_makes_one(after=60)
    assert mine != theirs
    peer.sweep()
    assert (peer.files, peer.held) == ([theirs], [])


def test_a_snapshot_that_was_refused_leaves_no_note(peer: Peer) -> None:
    def refuse(member: str, method: str, path: str) -> None:
        if method == "POST":
            raise Refusal(500, "no space left on device")

    peer.cluster.before = refuse
    with pytest.raises(RuntimeError, match="no space left"):
        peer.take()
    assert peer.held == []


def test_those_of_a_peer_that_is_away_wait_and_those_of_a_lost_collection_are_gone(
    peer: Peer,
) -> None:
    kill(peer)
    sweep(peer.access, {}, peer.cleanup())
    assert len(peer.held) == 1
    peer.cluster.collections.clear()
    peer.sweep()
    assert peer.held == []


@pytest.mark.parametrize("collection", ["@127.0.0.1:1/x", "..", "a/../../b", "a?b#c", "a b"])
def test_no_note_leads_to_another_server_or_another_path(collection: str, peer: Peer) -> None:
    asked: list[str] = []

    def count(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(404, json={"status": {"error": "not found"}})

    note = ShardSnapshot(
        peer="qdrant-0", collection=collection, shard=7, known=(), asked=peer.cluster.now
    )
    with httpx.Client(transport=httpx.MockTransport(count)) as http:
        peer.access.http = http
        sweep(peer.access, {"qdrant-0": peer.shard.peer}, CleanupJournal([note]))
    parts = [urlsplit(url) for url in asked]
    assert {part.netloc for part in parts} == {peer.shard.peer.url}
    (path,) = {part.path for part in parts} - {"/healthz"}
    assert path.startswith("/collections/")
    assert path.endswith("/shards/7/snapshots")
    assert path.count("/") == 5


def kill(peer: Peer) -> None:
    """A run writes its note, asks for a snapshot, and is gone."""

    def gone(member: str, method: str, path: str) -> None:
        if method == "POST":
            raise httpx.RemoteProtocolError("the connection ended")

    peer.cluster.before = gone
    with pytest.raises(httpx.RemoteProtocolError):
        peer.take()
    peer.cluster.before = lambda *_: None
