"""One message whose subject or headers cannot be read does not end a connection, and with it a backup."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError

from components.access import Endpoint
from components.nats.client import connect
from components.nats.streams.messages import Reading

INFO = {"server_id": "N", "version": "2.15.1", "max_payload": 1 << 20, "headers": True}


# What nats-server 2.15.1 was measured to store of a HPUB: any block, a status line without its status.
STORED = (b"NATS/1.0", b"X", b"\xff" * 9, b"NATS/1.0 \xff\xff\r\n\r\n")


class Server:
    """NATS' own protocol, as far as a subscriber needs it: a connection that gets these bytes for a subscription.

    Args:
        sent: of messages, with `%s` for the subscription.
    """

    def __init__(self, *sent: bytes) -> None:
        self._sent = sent

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO " + json.dumps(INFO).encode() + b"\r\n")
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
            if line.startswith(b"SUB"):
                for one in self._sent:
                    writer.write(one.replace(b"%s", line.split()[-1]))
        writer.close()

    async def read(self, count: int) -> list[Msg]:
        """Messages of a client that subscribes."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        access: Any = SimpleNamespace(secret=lambda name, key: "password", timeout_seconds=5.0)
        client = await connect(cast(Any, access), [Endpoint("nats-0", "127.0.0.1", port, "", "")])
        try:
            messages = await client.subscribe(">")
            return [await messages.next_msg(30) for _ in range(count)]
        finally:
            await client.close()
            server.close()


def with_headers(block: bytes) -> bytes:
    """A message with a block of headers and a body of one byte."""
    return b"HMSG fine %%s %d %d\r\n%sx\r\n" % (len(block), len(block) + 1, block)


def digest_of(headers: dict[str, str] | None) -> str:
    reading = Reading(apart=True)
    reading.add(1, "1", "fine", headers, b"x")
    return reading.stats.digest


def test_its_bytes_are_told_and_the_next_message_comes_too() -> None:
    server = Server(b"MSG odd.\xff %s 1\r\nx\r\n", b"MSG fine %s 1\r\nx\r\n")
    assert [one.subject for one in asyncio.run(server.read(2))] == ["odd.\\xff", "fine"]


def test_headers_that_are_none_count_by_their_bytes_and_the_next_message_comes_too() -> None:
    sent = [with_headers(block) for block in STORED]
    *odd, last = asyncio.run(Server(*sent, b"MSG last %s 1\r\nx\r\n").read(5))
    assert last.subject == "last"
    assert len({digest_of(one.headers) for one in odd}) == len(STORED)


def test_the_lifetime_behind_a_status_that_cannot_be_read_counts() -> None:
    block = b"NATS/1.0 200 \xff\r\nNats-TTL: 5s\r\n\r\n"
    (message,) = asyncio.run(Server(with_headers(block)).read(1))
    assert (message.headers or {})["Nats-TTL"] == "5s"


def test_headers_that_can_be_read_keep_their_digest() -> None:
    block = b"NATS/1.0\r\nA: 1\r\nNats-Msg-Id: 7\r\n\r\n"
    (message,) = asyncio.run(Server(with_headers(block)).read(1))
    assert message.headers == {"A": "1", "Nats-Msg-Id": "7"}


def test_a_reader_that_ends_is_no_silence() -> None:
    """The library's parser fails on INFO that is no JSON: 30 s of waiting would follow."""
    with pytest.raises(ConnectionClosedError):
        asyncio.run(asyncio.wait_for(Server(b"INFO x\r\n").read(1), 20))
