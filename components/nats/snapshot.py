"""A stream's snapshot over JetStream's own API, with its flow control.

The server sends chunks, each with a subject to acknowledge it on, and gives up 5 s after the last acknowledgement: so
a chunk is acknowledged as soon as it is there, and goes to a spool (nats-server: server/jetstream_api.go,
`streamSnapshot`). The last chunk has no such subject, and an empty message ends the snapshot; its status tells
whether it is whole. Tried on 2.15.1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError

from components.nats.client import Unanswered, call

# 128 KiB chunks came at 246 MB/s, 1 MiB ones at 459; the window is what lies in our memory at most
CHUNK_BYTES, WINDOW_BYTES = 512 << 10, 8 << 20
DONE = ("", "204")


class Snapshot:
    """One stream's snapshot; iterate it once, in one thread.

    Args:
        loop: not running; driven while the snapshot is iterated.
        client: connected on that loop.
        stream: name.
        stall: seconds without a chunk after which it is given up.

    Attributes:
        config: the stream's, as a restore must send it.
        state: the stream's, at the snapshot's moment.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, client: Client, stream: str, stall: float
    ) -> None:
        self._loop, self._client, self._stream, self._stall = loop, client, stream, stall
        self.config: dict[str, Any] = {}
        self.state: dict[str, Any] = {}

    def begin(self) -> None:
        """Ask for it.

        Raises:
            Refused: JetStream will not, for instance since the stream is kept in memory.
            Unanswered: the stream has no leader.
        """
        self._loop.run_until_complete(self._begin())

    def __iter__(self) -> Iterator[bytes]:
        """Its bytes: a tar, compressed with s2.

        Raises:
            Unanswered: it broke off, a chunk is missing, or the server says that it failed.
        """
        expected = 1
        while True:
            message = self._loop.run_until_complete(self._next())
            if not message.data:
                status = (message.headers or {}).get("Status", "")
                if status not in DONE:
                    why = (message.headers or {}).get("Description", "")
                    raise Unanswered(f"the snapshot of {self._stream} failed: {status} {why}")
                self._loop.run_until_complete(self._client.flush())
                return
            if message.reply:
                # …ACK.<stream>.<id>.<size>.<number>: lost and repeated chunks were seen in nats-server#5122
                number = int(message.reply.rpartition(".")[2])
                if number != expected:
                    raise Unanswered(
                        f"the snapshot of {self._stream} has chunk {number} instead of {expected}"
                    )
                expected += 1
            yield message.data

    async def _begin(self) -> None:
        inbox = self._client.new_inbox()
        self._chunks = await self._client.subscribe(
            inbox, pending_msgs_limit=-1, pending_bytes_limit=4 * WINDOW_BYTES
        )
        request = {
            "deliver_subject": inbox,
            "no_consumers": False,
            "jsck": True,
            "chunk_size": CHUNK_BYTES,
            "window_size": WINDOW_BYTES,
        }
        answer = await call(
            self._client, f"STREAM.SNAPSHOT.{self._stream}", request, timeout=self._stall
        )
        self.config, self.state = answer["config"], answer["state"]

    async def _next(self) -> Msg:
        try:
            message = await self._chunks.next_msg(self._stall)
        except NatsTimeoutError as exc:
            raise Unanswered(
                f"the snapshot of {self._stream} sent nothing for {self._stall:.0f} s"
            ) from exc
        if message.reply:
            await self._client.publish(message.reply, b"")
        return message
