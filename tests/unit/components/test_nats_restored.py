"""A live stream comes back with all that it was told to do; in a proof it keeps still."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.errors import NoRespondersError

from components.nats import live, restore
from components.nats.client import Account
from components.nats.restore import UNPROVEN, restore_stream
from errors import TemporaryError

CONFIG = {
    "name": "COPY",
    "num_replicas": 3,
    "placement": {"cluster": "east"},
    "mirror": {"name": "ORDERS"},
    "republish": {"src": ">", "dest": "told.>"},
    "max_age": 3_600_000_000_000,
    "max_msgs": 100,
}


class Server:
    """Takes a stream.

    Attributes:
        deaf: how many requests it does not hear once it has said where it listens.
        asked: configurations that it was to restore, and whether the stream was deleted again.
        taken: chunks.
    """

    def __init__(self, deaf: int = 0) -> None:
        self.deaf = deaf
        self.asked: list[Any] = []
        self.taken: list[bytes] = []

    async def request(self, subject: str, data: bytes, timeout: float) -> Any:
        if subject == "$JS.API.STREAM.RESTORE.COPY":
            self.asked.append(json.loads(data)["config"])
            return SimpleNamespace(data=json.dumps({"deliver_subject": "here"}).encode())
        if subject == "$JS.API.STREAM.DELETE.COPY":
            self.asked.append("delete")
            return SimpleNamespace(data=b"{}")
        if self.deaf:
            self.deaf -= 1
            raise NoRespondersError
        self.taken.append(data)
        return SimpleNamespace(data=b"")

    def restore(self, without: tuple[str, ...]) -> None:
        loop = asyncio.new_event_loop()
        try:
            to = Account("app", cast(Any, self), loop)
            restore_stream(to, {"config": CONFIG, "state": {}}, [b"snapshot"], without=without)
        finally:
            loop.close()


def asked_for(without: tuple[str, ...]) -> dict[str, Any]:
    """The configuration that JetStream is asked to restore a stream with."""
    server = Server()
    server.restore(without)
    return dict(server.asked[0])


def test_the_live_one_follows_and_forgets_as_it_did() -> None:
    wanted = {key: value for key, value in CONFIG.items() if key != "placement"}
    assert asked_for(("placement",)) == {**wanted, "num_replicas": 1}


def test_that_of_a_proof_takes_nothing_and_loses_nothing() -> None:
    assert asked_for(UNPROVEN) == {"name": "COPY", "num_replicas": 1, "max_msgs": 100}


def test_a_chunk_that_nobody_heard_yet_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "HEARD_PAUSE_SECONDS", 0)
    server = Server(deaf=3)
    server.restore(())
    assert (server.taken, server.asked[1:]) == ([b"snapshot", b""], [])


def test_where_nobody_hears_at_all_what_was_begun_is_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(restore, "HEARD_PAUSE_SECONDS", 0)
    server = Server(deaf=restore.HEARD_TRIES + 1)
    with pytest.raises(TemporaryError, match="stream COPY"):
        server.restore(())
    assert server.asked[1:] == ["delete"]


def test_a_live_one_goes_only_when_all_that_replaces_it_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(name: str, file: Path) -> Path:
        raise TemporaryError("the store is away")

    backup = SimpleNamespace(spool=tmp_path, nats=SimpleNamespace(accounts=()))
    access = SimpleNamespace(settings=SimpleNamespace(backup=backup))
    reader = SimpleNamespace(
        names=lambda form: ["app/COPY/stream.tar.s2"],
        unit=lambda name: "stream app/COPY",
        size=lambda name: 8,
        save=away,
        manifest=SimpleNamespace(topology={"streams": {"app/COPY": {}}}),
    )
    leftovers = SimpleNamespace(replacing=lambda chosen: nullcontext())
    monkeypatch.setattr(live, "account", lambda *_: pytest.fail("JetStream was asked"))
    with pytest.raises(TemporaryError, match="store is away"):
        live.replace(
            cast(Any, access), None, cast(Any, reader), ["stream app/COPY"], cast(Any, leftovers)
        )
