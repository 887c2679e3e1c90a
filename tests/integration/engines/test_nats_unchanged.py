"""NATS: a backup stores the streams that have moved, and what it refers to is read as its own."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import nats
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig
from nats.js.client import JetStreamContext

from archive.backup.manifest import Manifest
from components.nats.backup import back_up
from tests.interval_sets import Sets, access_to, free_port

pytestmark = pytest.mark.integration

PROGRAM = str(Path(sys.executable).with_name("nats-server"))
NAMES = ("ORDERS", "EVENTS", "AUDIT")


class Server:
    """One server with three streams, each with a consumer."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        file = directory / "nats.conf"
        file.write_text(
            f"host: 127.0.0.1\nport: {self.port}\nauthorization {{ user: app, password: secret }}\n"
            f'jetstream {{ store_dir: "{directory}/js" }}\n'
        )
        self.process = subprocess.Popen([PROGRAM, "--config", str(file)])
        deadline = time.monotonic() + 30
        while not self._listens():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def do(self, work: Callable[[JetStreamContext], Awaitable[object]]) -> None:
        """Do something as a client."""

        async def run() -> None:
            client = await nats.connect(
                f"nats://127.0.0.1:{self.port}", user="app", password="secret"
            )
            try:
                await work(client.jetstream(timeout=20))
            finally:
                await client.close()

        asyncio.run(run())

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


async def fill(stream: JetStreamContext) -> None:
    for name in NAMES:
        await stream.add_stream(StreamConfig(name=name, subjects=[f"{name}.*"]))
        for number in range(50):
            await stream.publish(f"{name}.{number % 5}", b"%d" % number * 100)
        config = ConsumerConfig(durable_name="worker", ack_policy=AckPolicy.EXPLICIT)
        await stream.add_consumer(name, config)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    try:
        made.do(fill)
        yield made
    finally:
        made.process.kill()
        made.process.wait()


def stored(manifest: Manifest) -> set[str]:
    units = {one.unit for one in manifest.artefacts if not one.stored_in}
    return {unit.removeprefix("stream app/") for unit in units} - {"fingerprint"}


async def publish(stream: JetStreamContext) -> None:
    await stream.publish("ORDERS.1", b"new")


async def acknowledge(stream: JetStreamContext) -> None:
    pull = await stream.pull_subscribe_bind("worker", "EVENTS")
    (message,) = await pull.fetch(1, timeout=20)
    await message.ack_sync()


async def delete(stream: JetStreamContext) -> None:
    await stream.delete_msg("AUDIT", 7)


async def make_again(stream: JetStreamContext) -> None:
    """With as many messages of the same bytes."""
    await stream.delete_stream("AUDIT")
    await stream.add_stream(StreamConfig(name="AUDIT", subjects=["AUDIT.*"]))
    for number in range(50):
        await stream.publish(f"AUDIT.{number % 5}", b"%d" % number * 100)


async def limit(stream: JetStreamContext) -> None:
    config = (await stream.stream_info("ORDERS")).config
    config.max_msgs = 1_000_000
    await stream.update_stream(config)


def test_each_backup_stores_the_streams_that_have_moved_and_no_others(
    server: Server, tmp_path: Path
) -> None:
    sets = Sets("nats", back_up, access_to("nats", server.port, tmp_path), tmp_path)
    full = sets.take()
    assert stored(full) == {*NAMES}
    quiet = sets.take()
    assert (stored(quiet), quiet.needs) == (set(), (full.id,))
    for change, moved in (
        (publish, "ORDERS"),
        (acknowledge, "EVENTS"),
        (delete, "AUDIT"),
        (make_again, "AUDIT"),
        (limit, "ORDERS"),
    ):
        server.do(change)
        assert stored(sets.take()) == {moved}, change.__name__
    last = sets.take()
    assert stored(last) == set()
    reader = sets.reader(last)
    reader.read_whole()
    opened = {(one.unit, one.item): one for one in reader.manifest.fingerprint}
    assert opened["stream app/EVENTS", "messages"].digest not in ("", "sealed")
    assert opened["stream app/ORDERS", "messages"].count == 51
    assert reader.names("nats stream backup") == sorted(f"app/{n}/stream.tar.s2" for n in NAMES)
    again = sets.reader(full).manifest.fingerprint
    same = {(one.unit, one.item): one for one in again}
    key = ("stream app/EVENTS", "messages")
    assert opened[key] == same[key]
