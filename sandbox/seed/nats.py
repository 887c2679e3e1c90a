"""NATS: a stream with consumers in mid-work, a key-value bucket with history, an object store."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import TypeVar

import nats
from nats.js.api import AckPolicy, ConsumerConfig, KeyValueConfig, ObjectStoreConfig, StreamConfig
from nats.js.client import JetStreamContext
from nats.js.errors import NoStreamResponseError, ServiceUnavailableError

from components.access import Access
from components.nats.client import CLIENT_PORT, STATEFULSET, USER
from sandbox.seed import words

MESSAGES, ENTRIES, OBJECTS = 1000, 100, 3
REACHABLE_SECONDS = 20.0
STREAM, BUCKET, STORE = "ORDERS", "settings", "documents"

T = TypeVar("T")


def seed(access: Access, size: int, random: Random) -> dict[str, int]:
    """Fill the application's account."""
    return asyncio.run(_seed(access, size, random))


async def _seed(access: Access, size: int, random: Random) -> dict[str, int]:
    servers = access.settings.components.nats.members
    urls = [
        f"nats://{server.url}" for server in access.endpoints(STATEFULSET, servers, CLIENT_PORT)
    ]
    connection = await nats.connect(
        urls, user=USER, password=access.secret("nats-auth", "app-password")
    )
    try:
        stream = connection.jetstream(timeout=10)
        for name in (STREAM, f"KV_{BUCKET}", f"OBJ_{STORE}"):
            await _drop(stream, name)
        await _orders(stream, MESSAGES * size, min(3, servers), random)
        settings = await stream.create_key_value(
            KeyValueConfig(bucket=BUCKET, history=5, replicas=min(3, servers)),
        )
        for number in range(ENTRIES * size):
            await settings.put(f"limit.{number}", str(random.randint(1, 99)).encode())
            if number % 3 == 0:
                await settings.put(f"limit.{number}", b"changed")
            if number % 10 == 0:
                await settings.delete(f"limit.{number}")
        store = await stream.create_object_store(
            STORE,
            config=ObjectStoreConfig(bucket=STORE, replicas=min(3, servers)),
        )
        for number in range(OBJECTS):
            await store.put(f"manual-{number}.pdf", random.randbytes(200_000 * size))
    finally:
        await connection.close()
    return {
        "messages": MESSAGES * size,
        "consumers": 2,
        "entries": ENTRIES * size,
        "objects": OBJECTS,
    }


async def _orders(stream: JetStreamContext, messages: int, replicas: int, random: Random) -> None:
    await stream.add_stream(StreamConfig(name=STREAM, subjects=["orders.*"], num_replicas=replicas))
    pending = []
    for number in range(messages):
        order = {"n": number, "good": random.choice(words.GOODS), "who": words.person(random)}
        subject = f"orders.{random.choice(('new', 'paid', 'sent'))}"
        if number == 0:
            await _served(partial(stream.publish, subject, json.dumps(order).encode()))
            continue
        pending.append(await stream.publish_async(subject, json.dumps(order).encode()))
        if len(pending) == 200:
            await asyncio.gather(*pending)
            pending.clear()
    await asyncio.gather(*pending)
    for name, filtered, taken in (("billing", "orders.paid", 40), ("audit", None, 100)):
        config = ConsumerConfig(
            durable_name=name, ack_policy=AckPolicy.EXPLICIT, filter_subject=filtered, ack_wait=3600
        )
        await stream.add_consumer(STREAM, config)
        consumer = await stream.pull_subscribe_bind(name, STREAM)
        for message in await _served(partial(consumer.fetch, taken, timeout=10)):
            if random.random() < 0.9:  # the others stay pending
                await message.ack()


async def _served(ask: Callable[[], Awaitable[T]]) -> T:
    """Repeat a request until the server knows a new object; on a busy machine this takes seconds."""
    deadline = time.monotonic() + REACHABLE_SECONDS
    while True:
        try:
            return await ask()
        except (NoStreamResponseError, ServiceUnavailableError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


async def _drop(stream: JetStreamContext, name: str) -> None:
    try:
        await stream.delete_stream(name)
    except nats.js.errors.NotFoundError:
        return
