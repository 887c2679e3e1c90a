"""Counts and digests the messages of a stream.

They are read from the live stream, in the range of sequences that the snapshot has. If messages have left the stream
since the snapshot (a work queue, an age limit), they are counted without a digest.

Messages are read by an ordered consumer. Some streams refuse it: a work queue requires acknowledgements, and a stream
may have reached its limit of consumers. There, messages are requested one by one.

Messages that expire are counted separately. A server since 2.15 does not restore expired messages, even if the stream
keeps them (`RestoreStreamV2`, server/stream_backup.go). A stream that does not allow expiry (a mirror, a stream with
sources) keeps such messages. A restore loses them, and the backup names them.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from base64 import b64decode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import BadRequestError

from components.digest import Digest
from components.nats.client import Refused, Unanswered, call

SILENCE_SECONDS = 10.0
NO_MESSAGE = 10037
READERS = 16  # parallel requests, of one message each
# The settings that allow messages to expire, and the headers of messages that do (ADR-43, ADR-51).
OWN_TIMES = ("allow_msg_ttl", "allow_msg_schedules")
LIFETIME, SCHEDULE, NEVER = "Nats-TTL", "Nats-Schedule", "never"
# Whole seconds, or a duration as Go writes it (`parseMessageTTL`, server/stream.go).
DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


@dataclass(frozen=True)
class MessageStats:
    """Counts and digest of a stream's messages.

    Attributes:
        count: all messages.
        digest: of the messages that do not expire.
        expiring: messages that expire; 0 unless they are counted separately.
        apart: messages that expire are counted separately.
        overdue: messages whose lifetime was over when they were read.
        largest: bytes of the largest message, headers included.
    """

    count: int = 0
    digest: str = ""
    expiring: int = 0
    apart: bool = False
    overdue: int = 0
    largest: int = 0

    @property
    def staying(self) -> int:
        """Messages without those that are counted separately."""
        return self.count - self.expiring


class Silent(Unanswered):
    """A stream stopped sending before all its messages had arrived.

    Attributes:
        stats: the messages that arrived.
    """

    def __init__(self, stream: str, stats: MessageStats, expected: int) -> None:
        super().__init__(
            f"stream {stream} sent {stats.count} of {expected} messages and then nothing more"
        )
        self.stats = stats


async def measure_messages(
    client: Client, stream: str, state: dict[str, Any], *, apart: bool = False
) -> MessageStats:
    """Count and digest the messages of a stream, in the range of its snapshot.

    Args:
        client: connected to the stream's account.
        stream: its name.
        state: the stream's state at the snapshot.
        apart: count messages that expire separately.

    Raises:
        Silent: the server stopped sending. In a stream that is in use, the missing messages have left it. In any other
            stream, the server does not deliver them.
        Unanswered: the server went away.
    """
    first, last, expected = int(state["first_seq"]), int(state["last_seq"]), int(state["messages"])
    reading = Reading(apart)
    if not expected:
        return reading.stats
    try:
        try:
            await _by_consumer(client, stream, first, last, expected, reading)
        except BadRequestError:
            await _one_by_one(client, stream, first, last, reading)
    except NatsError as exc:
        raise Unanswered(f"stream {stream} cannot be read: {exc}") from exc
    return reading.stats


def nanoseconds(moment: str) -> int:
    """A time of JetStream (RFC 3339) in nanoseconds since 1970."""
    seconds, _, fraction = moment.removesuffix("Z").partition(".")
    whole_seconds = int(datetime.fromisoformat(f"{seconds}+00:00").timestamp())
    return whole_seconds * 1_000_000_000 + int(fraction.ljust(9, "0"))


def lifetime_seconds(text: str) -> float:
    """Seconds of a `Nats-TTL`; 0 if the message never expires."""
    if text.isascii() and text.isdigit():  # isdigit is true for `²`
        return float(text)
    return sum(float(count) * UNITS[unit] for count, unit in DURATION.findall(text))


def expires(config: Mapping[str, Any]) -> bool:
    """Whether a stream may have messages that expire."""
    return any(config.get(setting) for setting in OWN_TIMES)


# ---------------------------------------------------------------------- inside
class Reading:
    """Counts messages as they arrive, in any order.

    Args:
        apart: count messages that expire separately.
    """

    def __init__(self, apart: bool) -> None:
        self._digest, self._expiring, self._apart = Digest(), 0, apart
        self._overdue = self._largest = 0

    @property
    def count(self) -> int:
        """The number of messages so far."""
        return self._digest.count + self._expiring

    @property
    def stats(self) -> MessageStats:
        """The counts so far."""
        return MessageStats(
            self.count, self._digest.text, self._expiring, self._apart, self._overdue, self._largest
        )

    def add(
        self,
        sequence: int,
        stamp: str,
        subject: str,
        headers: Mapping[str, str] | None,
        data: bytes,
    ) -> None:
        """Add one message.

        Args:
            sequence: its sequence in the stream.
            stamp: when it was stored, in nanoseconds since 1970.
            subject: its subject.
            headers: its headers, as the client reads them.
            data: its body.
        """
        self._largest = max(self._largest, _size(headers) + len(data))
        if self._apart and headers and _expires(headers):
            self._expiring += 1
            self._overdue += _is_overdue(headers, int(stamp))
        else:
            self._digest.add(_digest(sequence, stamp, subject, headers, data))


def _expires(headers: Mapping[str, str]) -> bool:
    return SCHEDULE in headers or headers.get(LIFETIME, NEVER) != NEVER


def _is_overdue(headers: Mapping[str, str], stamp: int) -> bool:
    seconds = lifetime_seconds(headers.get(LIFETIME, NEVER))
    return seconds > 0 and stamp + seconds * 1e9 < time.time_ns()


def _size(headers: Mapping[str, str] | None) -> int:
    """Bytes of a message's headers on the wire (ADR-4): a version line, a line `name: value` each, an empty line."""
    if not headers:
        return 0
    lines = sum(len(f"{name}: {value}\r\n".encode()) for name, value in headers.items())
    return len(b"NATS/1.0\r\n\r\n") + lines


async def _by_consumer(
    client: Client, stream: str, first: int, last: int, expected: int, reading: Reading
) -> None:
    config = ConsumerConfig(
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=first,
        ack_policy=AckPolicy.NONE,
    )
    # an ordered consumer is ephemeral and has flow control; the client creates it again when a message is missing
    messages = await client.jetstream().subscribe(
        ">", stream=stream, ordered_consumer=True, config=config
    )
    try:
        while reading.count < expected:
            message = await messages.next_msg(SILENCE_SECONDS)
            sequence, stamp = _position(message.reply)
            if sequence > last:
                break
            reading.add(sequence, stamp, message.subject, message.headers, message.data)
            if sequence == last:
                break
    except NatsTimeoutError as exc:
        raise Silent(stream, reading.stats, expected) from exc
    finally:
        with suppress(NatsError):  # without a connection there is no subscription to end
            await messages.unsubscribe()


async def _one_by_one(client: Client, stream: str, first: int, last: int, reading: Reading) -> None:
    async def read(low: int, high: int) -> None:
        while low <= high:
            request = {"seq": low, "next_by_subj": ">"}
            try:
                answer = await call(
                    client, f"STREAM.MSG.GET.{stream}", request, timeout=SILENCE_SECONDS
                )
            except Refused as exc:
                if exc.code == NO_MESSAGE:
                    return
                raise
            message = answer["message"]
            if (sequence := int(message["seq"])) > high:
                return
            # parsed by the client, as it parses the headers of a subscription's messages
            headers = await client._process_headers(b64decode(message.get("hdrs", "")))
            data, stamp = b64decode(message.get("data", "")), nanoseconds(message["time"])
            reading.add(sequence, str(stamp), message["subject"], headers, data)
            low = sequence + 1

    batch = -(-(last - first + 1) // READERS)
    ranges = ((low, min(low + batch - 1, last)) for low in range(first, last + 1, batch))
    readers = [asyncio.ensure_future(read(*bounds)) for bounds in ranges]
    try:
        await asyncio.gather(*readers)
    finally:
        for reader in readers:
            reader.cancel()


def _digest(
    sequence: int, stamp: str, subject: str, headers: Mapping[str, str] | None, data: bytes
) -> int:
    digest = blake2b(digest_size=16)
    header_text = json.dumps(headers, sort_keys=True) if headers else ""
    for text in (str(sequence), stamp, subject, header_text):
        digest.update(text.encode() + b"\0")
    digest.update(data)
    return int.from_bytes(digest.digest(), "big")


def _position(reply: str) -> tuple[int, str]:
    """Sequence and time from `$JS.ACK.…`. The longer form has domain and account in front (ADR-15)."""
    parts = reply.split(".")
    return (int(parts[5]), parts[7]) if len(parts) == 9 else (int(parts[7]), parts[9])
