"""A server that gives nothing is trouble, and no verdict about what it holds."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.aio.client import Client
from nats.errors import ConnectionClosedError
from nats.errors import TimeoutError as NatsTimeoutError

from components.nats.streams.messages import MessageStats, Silent, measure_messages
from errors import TemporaryError

STATE = {"first_seq": 1, "last_seq": 3, "messages": 3}


def read(*answers: object) -> MessageStats:
    """What is measured of a stream that gives these messages, or raises."""
    left = list(answers)

    async def next_msg(_: float) -> Any:
        one = left.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    async def unsubscribe() -> None:
        return

    async def subscribe(*_: object, **__: object) -> Any:
        return SimpleNamespace(next_msg=next_msg, unsubscribe=unsubscribe)

    context = SimpleNamespace(subscribe=subscribe)
    client = cast(Client, SimpleNamespace(jetstream=lambda: context))
    return asyncio.run(measure_messages(client, "ORDERS", STATE))


def message(sequence: int) -> Any:
    reply = f"$JS.ACK.ORDERS.c.1.{sequence}.1.170.0"
    return SimpleNamespace(reply=reply, headers=None, subject="orders.new", data=b"1")


def test_silence_is_no_answer() -> None:
    with pytest.raises(Silent, match="sent 1 of 3 messages"):
        read(message(1), NatsTimeoutError())


def test_a_server_that_goes_away_may_be_asked_again() -> None:
    with pytest.raises(TemporaryError, match="cannot be read"):
        read(message(1), ConnectionClosedError())


def test_all_that_was_promised_has_a_digest() -> None:
    seen = read(message(1), message(2), message(3))
    assert seen.count == 3
    assert seen.digest
