"""What JetStream refuses because it has not heard of its servers lately is asked again; anything else is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from components.nats.client import PLACEMENT_SECONDS, Account, Refused, call_when_placed

NO_SERVERS = {"error": {"code": 503, "err_code": 10023, "description": "insufficient resources"}}
IN_USE = {"error": {"code": 400, "err_code": 10058, "description": "stream name already in use"}}


class Server:
    """Gives its answers one after the other, the last one for ever."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self._answers = list(answers)
        self.asked = 0
        self.now = 0.0

    async def request(self, subject: str, data: bytes, timeout: float) -> Any:
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return SimpleNamespace(data=json.dumps(answer).encode())

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def ask(server: Server, loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
    connected = Account("app", server, loop)  # type: ignore[arg-type]
    return call_when_placed(
        connected, "X", timeout=1.0, clock=lambda: server.now, sleep=server.sleep
    )


def test_it_is_placed_as_soon_as_there_are_servers(loop: asyncio.AbstractEventLoop) -> None:
    assert ask(Server(NO_SERVERS, NO_SERVERS, {"type": "made"}), loop) == {"type": "made"}


def test_no_servers_for_a_minute_is_a_refusal(loop: asyncio.AbstractEventLoop) -> None:
    server = Server(NO_SERVERS)
    with pytest.raises(Refused, match="10023"):
        ask(server, loop)
    assert server.now >= PLACEMENT_SECONDS


def test_what_no_time_heals_is_asked_once(loop: asyncio.AbstractEventLoop) -> None:
    server = Server(IN_USE)
    with pytest.raises(Refused, match="10058"):
        ask(server, loop)
    assert server.asked == 1
