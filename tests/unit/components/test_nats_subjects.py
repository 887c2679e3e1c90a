"""One message whose subject is no UTF-8 does not end a connection, and with it a backup."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

from components.access import Endpoint
from components.nats.client import connect

INFO = {"server_id": "N", "version": "2.15.1", "max_payload": 1 << 20, "headers": True}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """NATS' own protocol, as far as a subscriber needs it: two messages for each subscription."""
    writer.write(b"INFO " + json.dumps(INFO).encode() + b"\r\n")
    while line := await reader.readline():
        if line.startswith(b"PING"):
            writer.write(b"PONG\r\n")
        if line.startswith(b"SUB"):
            sid = line.split()[-1]
            for subject in (b"odd.\xff", b"fine"):
                writer.write(b"MSG %s %s 1\r\nx\r\n" % (subject, sid))
    writer.close()


async def received() -> list[str]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    access: Any = SimpleNamespace(secret=lambda name, key: "password", timeout_seconds=5.0)
    client = await connect(cast(Any, access), [Endpoint("nats-0", "127.0.0.1", port, "", "")])
    try:
        messages = await client.subscribe(">")
        return [(await messages.next_msg(5)).subject for _ in range(2)]
    finally:
        await client.close()
        server.close()


def test_its_bytes_are_told_and_the_next_message_comes_too() -> None:
    assert asyncio.run(received()) == ["odd.\\xff", "fine"]
