"""A live stream comes back with all that it was told to do; in a proof it keeps still."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from nats.errors import NoRespondersError

from components.nats import live, restore
from components.nats.capacity import restored_first
from components.nats.client import Account
from components.nats.restore import restore_stream, unproven
from errors import TemporaryError

CONFIG = {
    "name": "COPY",
    "num_replicas": 3,
    "placement": {"cluster": "east"},
    "mirror": {"name": "ORDERS"},
    "republish": {"src": ">", "dest": "told.>"},
    "max_age": 3_600_000_000_000,
    "max_msgs": 100,
    "max_msg_size": 1000,
}


class Server:
    """Takes a stream.

    Attributes:
        deaf: how many requests it does not hear once it has said where it listens.
        max_payload: bytes that a message may have, as the client learned it from the server.
        asked: configurations that it was to restore, and whether the stream was deleted again.
        taken: chunks.
    """

    connected_url = urlsplit("nats://app@10.0.0.1:4222")

    def __init__(self, deaf: int = 0, max_payload: int = 1 << 20) -> None:
        self.deaf, self.max_payload = deaf, max_payload
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

    def restore(self) -> None:
        loop = asyncio.new_event_loop()
        try:
            restore_stream(Account("app", cast(Any, self), loop), CONFIG, {}, [b"snapshot"])
        finally:
            loop.close()


def test_the_live_one_follows_and_forgets_as_it_did_and_its_messages_may_be_of_any_size() -> None:
    first = restored_first(CONFIG)
    left = {key: value for key, value in CONFIG.items() if key not in first}
    assert left == {"placement": {"cluster": "east"}, "max_msg_size": 1000}
    assert {**left, **first} == {**CONFIG, "num_replicas": 1}


def test_that_of_a_proof_takes_nothing_and_loses_nothing() -> None:
    assert set(CONFIG) - set(unproven(CONFIG)) == {"name", "num_replicas", "max_msgs"}


def test_that_of_a_proof_keeps_what_only_an_ephemeral_consumer_kept_for_a_while() -> None:
    assert "retention" in unproven({**CONFIG, "retention": "interest"})
    assert "retention" not in unproven({**CONFIG, "retention": "workqueue"})


def test_no_chunk_is_larger_than_the_server_takes() -> None:
    server = Server(max_payload=3)
    server.restore()
    assert server.taken == [b"sna", b"psh", b"ot", b""]


def test_a_chunk_that_nobody_heard_yet_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "HEARD_PAUSE_SECONDS", 0)
    server = Server(deaf=3)
    server.restore()
    assert (server.taken, server.asked[1:]) == ([b"snapshot", b""], [])


def test_where_nobody_hears_at_all_what_was_begun_is_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(restore, "HEARD_PAUSE_SECONDS", 0)
    server = Server(deaf=restore.HEARD_TRIES + 1)
    with pytest.raises(TemporaryError, match="stream COPY"):
        server.restore()
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
    cleanup = SimpleNamespace(replacing=lambda chosen: nullcontext())
    monkeypatch.setattr(live, "account", lambda *_: pytest.fail("JetStream was asked"))
    with pytest.raises(TemporaryError, match="store is away"):
        live.replace(
            cast(Any, access), None, cast(Any, reader), ["stream app/COPY"], cast(Any, cleanup)
        )
