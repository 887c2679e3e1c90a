"""What JetStream does a moment later is waited for: servers for what is made, consumers of what was restored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from components.nats.client import (
    PLACEMENT_SECONDS,
    Account,
    Incomplete,
    Refused,
    call_when_placed,
)
from components.nats.streams.consumers import (
    MAYBE_SECONDS,
    QUEUE,
    consumers_of,
    make_missing_consumers,
    wait_for_consumers,
)

NO_SERVERS = {"error": {"code": 503, "err_code": 10023, "description": "insufficient resources"}}
NOT_FOUND = {"error": {"code": 404, "err_code": 10059, "description": "stream not found"}}
IN_USE = {"error": {"code": 400, "err_code": 10058, "description": "stream name already in use"}}


class Server:
    """Gives its answers one after the other, the last one for ever."""

    connected_url = urlsplit("nats://app@10.0.0.1:4222")

    def __init__(self, *answers: dict[str, Any]) -> None:
        self._answers = list(answers)
        self.asked = 0
        self.bodies: list[Any] = []
        self.now = 0.0

    async def request(self, subject: str, data: bytes, timeout: float) -> Any:
        self.asked += 1
        self.bodies.append(json.loads(data) if data else None)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return SimpleNamespace(data=json.dumps(answer).encode())

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def names(*found: str) -> dict[str, Any]:
    return {"consumers": list(found), "total": len(found)}


def described(*found: str, missing: tuple[str, ...] = ()) -> dict[str, Any]:
    entries = [{"name": name} for name in found]
    total = len([name for name in found if name]) + len(missing)
    return {"consumers": entries, "total": total, "missing": list(missing)}


def wait(server: Server, loop: asyncio.AbstractEventLoop, *left_out: str) -> None:
    saved = [{"name": name, "config": {"durable_name": name}} for name in ("audit", "bills")]
    ephemeral: dict[str, Any] = {"name": "x1", "config": {}}
    connected = Account("app", server, loop)  # type: ignore[arg-type]
    found = [*saved, ephemeral]
    wait_for_consumers(
        connected, "ORDERS", found, left_out, clock=lambda: server.now, sleep=server.sleep
    )


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


def test_restored_consumers_are_waited_for_until_the_cluster_has_them_all(
    loop: asyncio.AbstractEventLoop,
) -> None:
    server = Server(names(), names("audit"), names("audit", "bills"))
    wait(server, loop)
    assert server.asked == 3


def test_a_restored_stream_that_the_leader_does_not_know_yet_is_waited_for(
    loop: asyncio.AbstractEventLoop,
) -> None:
    server = Server(NOT_FOUND, NOT_FOUND, names("audit", "bills"))
    wait(server, loop)
    assert server.asked == 3
    server = Server(NOT_FOUND)
    with pytest.raises(Refused, match="10059"):
        wait(server, loop)
    assert server.now >= PLACEMENT_SECONDS


def test_those_that_a_snapshot_may_not_have_are_waited_for_a_few_seconds_only(
    loop: asyncio.AbstractEventLoop,
) -> None:
    server = Server(names("audit"))
    wait(server, loop, "bills")
    assert MAYBE_SECONDS <= server.now < MAYBE_SECONDS + 1
    server = Server(names("bills"))
    wait(server, loop, "bills")
    assert PLACEMENT_SECONDS <= server.now < PLACEMENT_SECONDS + 1


def list_consumers(server: Server, loop: asyncio.AbstractEventLoop) -> list[dict[str, Any]]:
    connected = Account("app", server, loop)  # type: ignore[arg-type]
    return consumers_of(connected, "ORDERS", clock=lambda: server.now, sleep=server.sleep)


def test_a_list_that_lacks_consumers_without_a_leader_is_asked_for_again(
    loop: asyncio.AbstractEventLoop,
) -> None:
    server = Server(described("audit", missing=("bills",)), described("audit", "bills"))
    assert [one["name"] for one in list_consumers(server, loop)] == ["audit", "bills"]
    with pytest.raises(Incomplete, match="no leader answers for bills"):
        list_consumers(Server(described("audit", missing=("bills",))), loop)


def test_a_consumer_whose_servers_are_all_away_is_missing_and_not_listed_without_a_name(
    loop: asyncio.AbstractEventLoop,
) -> None:
    with pytest.raises(Incomplete) as caught:
        list_consumers(Server(described("audit", "", missing=("bills",))), loop)
    assert [one["name"] for one in caught.value.found] == ["audit"]
    assert caught.value.missing == ["bills"]


def made_again(loop: asyncio.AbstractEventLoop, retention: str) -> dict[str, Any]:
    """How a consumer is asked for that a snapshot left out."""
    server = Server(described(), {"name": "audit"})
    config = {"durable_name": "audit", "deliver_policy": "by_start_time", "opt_start_time": "2026"}
    saved = {"name": "audit", "config": config, "ack_floor": {"stream_seq": 7}}
    connected = Account("app", server, loop)  # type: ignore[arg-type]
    make_missing_consumers(connected, {"name": "ORDERS", "retention": retention}, [saved])
    return dict(server.bodies[-1]["config"])


def test_one_that_was_left_out_begins_behind_what_it_had_acknowledged_and_a_queues_as_it_did(
    loop: asyncio.AbstractEventLoop,
) -> None:
    behind = {"durable_name": "audit", "deliver_policy": "by_start_sequence", "opt_start_seq": 8}
    assert made_again(loop, "limits") == behind
    assert made_again(loop, QUEUE)["deliver_policy"] == "by_start_time"
