"""Measures backups between two nights: their bytes beside a full one; part of `make bench`.

NATS and MinIO are one real server each, Qdrant is the double of the unit tests. Contents are random, so nothing gets
smaller by compression.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import nats
from nats.js.api import StreamConfig
from nats.js.client import JetStreamContext

from components.minio import backup as minio
from components.minio.client import connect
from components.nats import backup as nats_backup
from components.qdrant import backup as qdrant
from sandbox.machine.binaries import ensure
from tests.bench.deploy import Figure, publish, table
from tests.interval_sets import Sets, access_to, free_port
from tests.unit.components.qdrant_fake import Cluster

UNITS = 100  # streams, collections; one of them changes
CONTENT = 16_384  # bytes of a message, of a point's payload
MESSAGES, POINTS = 40, 20  # of a unit
OBJECTS, OBJECT = 1000, 40_000
CHANGED, QUIET = 0.05, 0.01  # most bytes of a full backup
START_SECONDS = 30.0
HEAD = """# Backups between two nights, measured

`make bench` on {cores} cores, {date:%Y-%m-%d}, load by others {load:.1f}. A full backup, then one in which
nothing has changed, then one in which 1 % has: one of {units} streams of NATS ({messages} messages each), 1 % of
{objects} objects of MinIO, one of {units} collections of Qdrant ({points} points each; the double of the unit tests).
Bytes in the bucket, with manifests. A stream or a collection in which anything has changed is stored whole, so 1 % of
*every* stream costs a full backup.

"""


def figures() -> list[Figure]:
    """Measure all three."""
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as directory:
        for name, measure in (("NATS", _nats), ("MinIO", _minio), ("Qdrant", _qdrant)):
            place = Path(directory) / name
            place.mkdir()
            found += measure(name, place)
            print(table(found[-2:]), flush=True)
    return found


# ---------------------------------------------------------------------- one engine each
def _nats(name: str, place: Path) -> list[Figure]:
    port, config = free_port(), place / "nats.conf"
    config.write_text(
        f"host: 127.0.0.1\nport: {port}\nauthorization {{ user: app, password: secret }}\n"
        f'jetstream {{ store_dir: "{place}/js" }}\n'
    )

    async def publish(stream: JetStreamContext, number: int, count: int) -> None:
        bodies = random.Random()
        pending = [
            await stream.publish_async(f"S{number}.x", bodies.randbytes(CONTENT))
            for _ in range(count)
        ]
        await asyncio.gather(*pending)

    async def fill(stream: JetStreamContext) -> None:
        for number in range(UNITS):
            await stream.add_stream(StreamConfig(name=f"S{number}", subjects=[f"S{number}.*"]))
            await publish(stream, number, MESSAGES)

    def do(work: Callable[[JetStreamContext], Any]) -> None:
        async def run() -> None:
            client = await nats.connect(
                f"nats://127.0.0.1:{port}", user="app", password="secret", error_cb=_silent
            )
            await work(client.jetstream(timeout=20))
            await client.close()

        asyncio.run(run())

    program = str(Path(sys.executable).with_name("nats-server"))
    with _server([program, "--config", str(config)], lambda: do(lambda _: asyncio.sleep(0))):
        do(fill)
        sets = Sets("nats", nats_backup.back_up, access_to("nats", port, place), place)
        return _measured(name, sets, lambda: do(lambda stream: publish(stream, 7, 10)))


def _minio(name: str, place: Path) -> list[Figure]:
    port, program = free_port(), ensure(("minio",))["minio"]
    environ = {**os.environ, "MINIO_ROOT_USER": "secret-key", "MINIO_ROOT_PASSWORD": "secret-key"}
    argv = [
        str(program),
        "server",
        "--quiet",
        "--address",
        f"127.0.0.1:{port}",
        str(place / "data"),
    ]
    with httpx.Client(timeout=30) as http:

        def ready() -> None:
            http.get(f"http://127.0.0.1:{port}/minio/health/cluster/read").raise_for_status()

        with _server(argv, ready, environ):
            access = access_to("minio", port, place, http, "secret-key")
            client = connect(access, access.endpoints()[0])
            client.create_bucket(Bucket="documents")

            def put(first: int, last: int) -> None:
                for number in range(first, last):
                    body = random.Random(number).randbytes(OBJECT)
                    client.put_object(Bucket="documents", Key=f"{number:06d}.bin", Body=body)

            put(0, OBJECTS)
            sets = Sets("minio", minio.back_up, access, place)
            return _measured(name, sets, lambda: put(OBJECTS, OBJECTS + OBJECTS // 100))


def _qdrant(name: str, place: Path) -> list[Figure]:
    cluster, contents = Cluster(), random.Random(1)
    for number in range(UNITS):
        made = cluster.make(f"c{number}", points=POINTS, params={"replication_factor": 1})
        for shard in made.shards.values():
            for points in shard.points.values():
                for point in points.values():
                    point["payload"]["text"] = contents.randbytes(CONTENT).hex()
    sets = Sets("qdrant", qdrant.back_up, cluster.access(place), place)
    return _measured(name, sets, lambda: cluster.fill("c7", ["new"]))


# ---------------------------------------------------------------------- inside
async def _silent(_: Exception) -> None:
    """The server is starting; the client would print a traceback."""


def _measured(name: str, sets: Sets, change: Callable[[], None]) -> list[Figure]:
    def taken() -> tuple[int, float]:
        began = time.monotonic()
        manifest = sets.take()
        return sets.bytes_of(manifest), time.monotonic() - began

    full, quiet = taken(), taken()
    change()
    changed = taken()

    def figure(what: str, small: tuple[int, float], limit: float) -> Figure:
        share = small[0] / full[0]
        terms = (
            f"{small[0] / 1024:,.0f} KiB in {small[1]:.1f} s against {full[0] / 1024:,.0f} KiB in "
            f"{full[1]:.1f} s"
        )
        value, target = f"{share:.2%}", f"≤ {limit:.0%} of a full backup"
        return Figure(f"{name}, {what}", terms, value, target, share <= limit)

    return [figure("nothing changed", quiet, QUIET), figure("1 % changed", changed, CHANGED)]


@contextmanager
def _server(
    argv: list[str], ask: Callable[[], object], environ: dict[str, str] | None = None
) -> Iterator[None]:
    """A server that answers."""
    process = subprocess.Popen(
        argv, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                ask()
                break
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Measure, and write docs/results/bench-interval.md."""
    load, cores, date = os.getloadavg()[0], len(os.sched_getaffinity(0)), datetime.now(UTC)
    found = figures()
    head = HEAD.format(
        cores=cores, date=date, load=load, units=UNITS, messages=MESSAGES, objects=OBJECTS,
        points=POINTS,
    )  # fmt: skip
    publish("bench-interval.md", head + table(found) + "\n", found)


if __name__ == "__main__":
    main()
