"""A stream's snapshot over JetStream's API, with its flow control.

The server sends chunks, each with a subject to acknowledge it on. It gives up 5 s after the last acknowledgement, so a
chunk is acknowledged when it arrives, and stored in a spool (nats-server: server/jetstream_api.go, `streamSnapshot`).

The last chunk has no such subject. An empty message ends the snapshot; its status says whether it is complete. Tried on
2.15.1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError

from components.nats.client import Unanswered, call

# Measured: 246 MB/s with chunks of 128 KiB, 459 MB/s with 1 MiB. The window limits the memory that is used here.
CHUNK_BYTES, WINDOW_BYTES = 512 << 10, 8 << 20
DONE = ("", "204")


class Snapshot:
    """The snapshot of a stream. Iterate it once, in one thread.

    Args:
        loop: an event loop that is not running; it runs during the iteration.
        client: connected on that loop.
        stream: the stream's name.
        stall: seconds without a chunk until the snapshot fails.

    Attributes:
        config: the stream's configuration, as a restore must send it.
        state: the stream's state at the snapshot.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, client: Client, stream: str, stall: float
    ) -> None:
        self._loop, self._client, self._stream, self._stall = loop, client, stream, stall
        self.config: dict[str, Any] = {}
        self.state: dict[str, Any] = {}

    def begin(self) -> None:
        """Request the snapshot.

        Raises:
            Refused: JetStream refuses it, for example because the stream is in memory.
            Unanswered: the stream has no leader.
        """
        self._loop.run_until_complete(self._begin())

    def __iter__(self) -> Iterator[bytes]:
        """The snapshot's bytes: a tar archive, compressed with s2.

        Raises:
            Unanswered: no more chunks arrive, a chunk is missing, or the server reports a failure.
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
