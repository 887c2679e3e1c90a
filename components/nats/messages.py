"""Reads the messages of a stream, counts and digests them.

They are read from the living stream, over the sequences that its snapshot has. Where messages have left the stream in
between (a work queue, an age limit), there is no digest, and the stream is counted only. They are read by a consumer of
ours, or one by one where the stream takes none: a work queue wants each message acknowledged, and a stream may have as
many consumers as it is allowed to.

Messages that time takes are counted apart: a server since 2.15 leaves those out of a restore whose time has run out,
whatever the stream allows (`RestoreStreamV2`, server/stream_backup.go). A stream that does not allow such ends (a
mirror, one that gathers others) keeps them: a restore loses those, and the backup names them.
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
READERS = 16  # a request for each message: so many at once
# What lets messages of a stream go at their own time, and the headers of those that do: ADR-43, ADR-51.
OWN_TIMES = ("allow_msg_ttl", "allow_msg_schedules")
LIFETIME, SCHEDULE, NEVER = "Nats-TTL", "Nats-Schedule", "never"
# Whole seconds, or a duration as Go writes it (`parseMessageTTL`, server/stream.go).
DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


@dataclass(frozen=True)
class Seen:
    """What was read of a stream.

    Attributes:
        count: messages.
        digest: of those that stay.
        expiring: those that do not, where they are counted apart.
        apart: whether they are.
        overdue: those whose lifetime had run out when they were read.
        largest: bytes of the largest, headers included.
    """

    count: int = 0
    digest: str = ""
    expiring: int = 0
    apart: bool = False
    overdue: int = 0
    largest: int = 0

    @property
    def staying(self) -> int:
        """Messages without those that are counted apart."""
        return self.count - self.expiring


class Silent(Unanswered):
    """A stream gives less than its state promised.

    Attributes:
        seen: what it gave.
    """

    def __init__(self, stream: str, seen: Seen, wanted: int) -> None:
        super().__init__(
            f"stream {stream} sent {seen.count} of {wanted} messages and then nothing more"
        )
        self.seen = seen


async def measure_messages(
    client: Client, stream: str, state: dict[str, Any], *, apart: bool = False
) -> Seen:
    """Count and digest the messages of a stream that its snapshot has.

    Args:
        client: connected to its account.
        stream: name.
        state: of the stream, as the snapshot says.
        apart: those that expire are counted by themselves.

    Raises:
        Silent: nothing comes any more. Of a stream in use it means that the rest has left it, of any other that its
            server does not give it.
        Unanswered: the server went away.
    """
    first, last, wanted = int(state["first_seq"]), int(state["last_seq"]), int(state["messages"])
    found = Reading(apart)
    if not wanted:
        return found.seen
    try:
        try:
            await _by_consumer(client, stream, first, last, wanted, found)
        except BadRequestError:
            await _one_by_one(client, stream, first, last, found)
    except NatsError as exc:
        raise Unanswered(f"stream {stream} cannot be read: {exc}") from exc
    return found.seen


def nanoseconds(moment: str) -> int:
    """A time as JetStream tells it (RFC 3339), since 1970."""
    seconds, _, fraction = moment.removesuffix("Z").partition(".")
    whole = int(datetime.fromisoformat(f"{seconds}+00:00").timestamp())
    return whole * 1_000_000_000 + int(fraction.ljust(9, "0"))


def lifetime_seconds(text: str) -> float:
    """Seconds of a `Nats-TTL`; 0 where it has no end."""
    if text.isascii() and text.isdigit():  # `²` is a digit, too
        return float(text)
    return sum(float(count) * UNITS[unit] for count, unit in DURATION.findall(text))


def expires(config: Mapping[str, Any]) -> bool:
    """Whether a stream may have messages that expire."""
    return any(config.get(one) for one in OWN_TIMES)


# ---------------------------------------------------------------------- inside
class Reading:
    """Messages as they come, in any order.

    Args:
        apart: those that expire are counted by themselves.
    """

    def __init__(self, apart: bool) -> None:
        self._digest, self._expiring, self._apart = Digest(), 0, apart
        self._overdue = self._largest = 0

    @property
    def count(self) -> int:
        """Messages so far."""
        return self._digest.count + self._expiring

    @property
    def seen(self) -> Seen:
        """What was read so far."""
        return Seen(
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
        """Take one message in.

        Args:
            sequence: in its stream.
            stamp: nanoseconds since 1970, when it was stored.
            subject: of it.
            headers: as the client reads them.
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
    """Bytes of a message's headers on the wire (ADR-4): a version, `name: value` a line, an empty line."""
    if not headers:
        return 0
    lines = sum(len(f"{name}: {value}\r\n".encode()) for name, value in headers.items())
    return len(b"NATS/1.0\r\n\r\n") + lines


async def _by_consumer(
    client: Client, stream: str, first: int, last: int, wanted: int, found: Reading
) -> None:
    config = ConsumerConfig(
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=first,
        ack_policy=AckPolicy.NONE,
    )
    # an ordered consumer: ephemeral, with flow control, made again where a message is missing
    messages = await client.jetstream().subscribe(
        ">", stream=stream, ordered_consumer=True, config=config
    )
    try:
        while found.count < wanted:
            message = await messages.next_msg(SILENCE_SECONDS)
            sequence, stamp = _position(message.reply)
            if sequence > last:
                break
            found.add(sequence, stamp, message.subject, message.headers, message.data)
            if sequence == last:
                break
    except NatsTimeoutError as exc:
        raise Silent(stream, found.seen, wanted) from exc
    finally:
        with suppress(NatsError):  # with the connection gone there is nothing to end
            await messages.unsubscribe()


async def _one_by_one(client: Client, stream: str, first: int, last: int, found: Reading) -> None:
    async def read(low: int, high: int) -> None:
        while low <= high:
            wanted = {"seq": low, "next_by_subj": ">"}
            try:
                answer = await call(
                    client, f"STREAM.MSG.GET.{stream}", wanted, timeout=SILENCE_SECONDS
                )
            except Refused as exc:
                if exc.code == NO_MESSAGE:
                    return
                raise
            message = answer["message"]
            if (sequence := int(message["seq"])) > high:
                return
            # the client's own reading of them, as of what its subscriptions give
            headers = await client._process_headers(b64decode(message.get("hdrs", "")))
            data, stamp = b64decode(message.get("data", "")), nanoseconds(message["time"])
            found.add(sequence, str(stamp), message["subject"], headers, data)
            low = sequence + 1

    each = -(-(last - first + 1) // READERS)
    ranges = ((low, min(low + each - 1, last)) for low in range(first, last + 1, each))
    readers = [asyncio.ensure_future(read(*one)) for one in ranges]
    try:
        await asyncio.gather(*readers)
    finally:
        for reader in readers:
            reader.cancel()


def _digest(
    sequence: int, stamp: str, subject: str, headers: Mapping[str, str] | None, data: bytes
) -> int:
    digest = blake2b(digest_size=16)
    told = json.dumps(headers, sort_keys=True) if headers else ""
    for text in (str(sequence), stamp, subject, told):
        digest.update(text.encode() + b"\0")
    digest.update(data)
    return int.from_bytes(digest.digest(), "big")


def _position(reply: str) -> tuple[int, str]:
    """Sequence and time from `$JS.ACK.…`; a longer form names domain and account first (ADR-15)."""
    parts = reply.split(".")
    return (int(parts[5]), parts[7]) if len(parts) == 9 else (int(parts[7]), parts[9])
