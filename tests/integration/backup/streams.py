"""How tests talk to JetStream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from nats.aio.client import Client

from components.access import Access
from components.nats.client import CLIENT_PORT, STATEFULSET, call, connect

T = TypeVar("T")


def connected(access: Access, work: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
    """Do something with a client of the platform's own account."""

    async def run() -> T:
        client = await connect(access, access.endpoints(STATEFULSET, 3, CLIENT_PORT))
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(run())


def ask(access: Access, *questions: tuple[str, Any]) -> list[dict[str, Any]]:
    """Ask JetStream's API, one question after the other."""

    async def work(client: Client) -> list[dict[str, Any]]:
        return [await call(client, what, body, timeout=20) for what, body in questions]

    return connected(access, work)


def publish(access: Access, subject: str, count: int = 1, **headers: str) -> None:
    """Publish messages that are told apart by their numbers; those that count have no body."""

    async def work(client: Client) -> None:
        stream = client.jetstream()
        for number in range(count):
            body = b"" if "Nats-Incr" in headers else b"%d" % number
            await stream.publish(subject, body, timeout=20, headers=headers or None)

    connected(access, work)


def take(access: Access, stream: str, consumer: str, count: int) -> None:
    """Take messages from a consumer and acknowledge every second one of them first."""

    async def work(client: Client) -> None:
        pull = await client.jetstream().pull_subscribe_bind(consumer, stream)
        messages = await pull.fetch(count, timeout=20)
        for message in (*messages[::2], *messages[1::2]):
            await message.ack_sync()

    connected(access, work)
