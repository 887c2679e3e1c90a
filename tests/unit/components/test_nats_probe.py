"""What the gate of NATS writes is of its round alone, goes with it, and keeps nobody from anything.

The server answers as nats-server does: its codes are those of server/errors.json.
"""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import pytest
from nats.errors import TimeoutError as NatsTimeoutError

from components.access import Endpoint
from components.base import Check
from components.nats import readiness
from components.questions import PROBE

MEMBERS = ("nats-0", "nats-1", "nats-2")
OVERLAP, NO_PEERS = (10065, "subjects overlap"), (10005, "no suitable peers for placement")
OLD, YOUNG = "2026-01-01T00:00:00.5Z", "2026-01-01T00:10:00.5Z"


class JetStream:
    """Streams of one account, as the gate asks for them.

    Args:
        streams: there already: name → when it was made.
        refuses: requests to make a stream that are refused: number of replicas → code and words.
        silent: how many requests to make a stream get no answer.
        violation: what the user is told that he may not do.
    """

    connected_url = urlsplit("nats://app@10.0.0.1:4222")

    def __init__(
        self,
        streams: dict[str, str] | None = None,
        refuses: dict[int, tuple[int, str]] | None = None,
        silent: int = 0,
        violation: str = "",
    ) -> None:
        self.streams, self.refuses = dict(streams or {}), refuses or {}
        self.silent, self.violation = silent, violation
        self.made: list[dict[str, Any]] = []
        self.message = b""
        self.hear: Callable[[str], None] = lambda words: None

    async def request(self, subject: str, data: bytes, timeout: float) -> Any:
        verb, _, name = subject.removeprefix("$JS.API.STREAM.").partition(".")
        body = json.loads(data) if data else {}
        answer = getattr(self, f"_{verb.lower()}")(name, body)
        return SimpleNamespace(data=json.dumps(answer).encode())

    def _names(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"streams": list(self.streams), "total": len(self.streams)}

    def _info(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"created": self.streams[name], "ts": YOUNG}

    def _create(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self.made.append(body)
        if self.violation:
            self.hear(self.violation)
            raise NatsTimeoutError
        if self.silent:
            self.silent -= 1
            self.streams[name] = YOUNG
            raise NatsTimeoutError
        if code := self.refuses.get(body["num_replicas"]):
            return {"error": {"code": 400, "err_code": code[0], "description": code[1]}}
        self.streams[name] = YOUNG
        return {}

    def _delete(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self.streams.pop(name, None)
        return {}

    def _msg(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"message": {"seq": body["seq"], "data": b64encode(self.message).decode()}}

    def jetstream(self, timeout: float) -> Any:
        async def publish(subject: str, token: bytes) -> Any:
            self.message = token
            return SimpleNamespace(seq=1)

        return SimpleNamespace(publish=publish)

    async def close(self) -> None:
        pass


class Access:
    """Three servers, of which some answer."""

    def __init__(self, up: tuple[str, ...] = MEMBERS) -> None:
        self.timeout_seconds = 4.0
        nats = SimpleNamespace(members=len(MEMBERS))
        self.settings = SimpleNamespace(components=SimpleNamespace(nats=nats))
        self.up = up
        self.http = SimpleNamespace(get=self.get)

    def endpoints(self, workload: str, members: int, port: int) -> list[Endpoint]:
        return [Endpoint(name, name, port, "", "") for name in MEMBERS]

    def get(self, url: str) -> httpx.Response:
        if url.split("/")[2].partition(":")[0] not in self.up:
            raise httpx.ConnectError("refused")
        peers = [{"name": name, "current": True} for name in MEMBERS[1:]]
        meta = {"leader": MEMBERS[0], "replicas": peers}
        asked = httpx.Request("GET", url)
        return httpx.Response(200, json={"meta_cluster": meta}, request=asked)


def ask(server: JetStream, monkeypatch: pytest.MonkeyPatch, up: tuple[str, ...] = MEMBERS) -> Check:
    """The answer to the question whether a message is stored and read."""

    async def connect(access: Any, servers: Any, **given: Any) -> JetStream:
        server.hear = given.get("forbidden", server.hear)
        return server

    monkeypatch.setattr(readiness, "connect", connect)
    checks = readiness.ask(cast(Any, Access(up))).checks
    return next(check for check in checks if check.name.startswith("message stored"))


def test_a_round_makes_a_stream_of_its_own_and_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    server = JetStream()
    assert [ask(server, monkeypatch).verdict() for _ in range(2)] == ["ok", "ok"]
    first, second = server.made
    assert first["name"] != second["name"] and first["subjects"] != second["subjects"]
    assert server.streams == {}


def test_streams_of_rounds_under_way_and_of_clients_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_now = f"{PROBE}-{int(time.time())}-a"
    slow_clock = f"{PROBE}-1-a"  # old by its name, young by the clock of NATS
    there = {made_now: YOUNG, slow_clock: YOUNG, "CLIENTS": OLD, f"{PROBE}-1-b": OLD, PROBE: OLD}
    server = JetStream(there)
    assert ask(server, monkeypatch).ok
    assert sorted(server.streams) == sorted([made_now, slow_clock, "CLIENTS"])


def test_a_stream_that_overlaps_makes_the_answer_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    check = ask(JetStream(refuses={3: OVERLAP}), monkeypatch)
    assert check.verdict() == "unknown"
    assert "another stream takes every subject" in check.hint


def test_what_the_user_may_not_do_makes_the_answer_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    server = JetStream(violation="permissions violation for publish")
    check = ask(server, monkeypatch)
    assert check.verdict() == "unknown"
    assert "user app may not do it: permissions violation for publish" in check.hint
    assert len(server.made) == 1


def test_any_other_refusal_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    check = ask(JetStream(refuses={3: (10047, "insufficient storage")}), monkeypatch)
    assert check.verdict() == "down"
    assert "insufficient storage" in check.hint


def test_a_stream_whose_first_leader_is_dead_is_given_up_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = JetStream(silent=2)
    assert ask(server, monkeypatch).ok
    assert len(server.made) == 3
    assert server.streams == {}


def test_with_a_server_away_the_message_is_stored_on_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = JetStream(refuses={3: NO_PEERS})
    assert ask(server, monkeypatch, up=MEMBERS[:2]).ok
    assert [made["num_replicas"] for made in server.made] == [3, 2]
