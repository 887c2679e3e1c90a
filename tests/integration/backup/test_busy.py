"""Engines whose clients go on meanwhile: their sets are proven all the same, and restores get their way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count

import pytest
from botocore.exceptions import ClientError
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from archive.backup.manifest import Manifest
from components.access import Access, Endpoint
from components.emqx import client as emqx
from components.minio import client as minio
from components.minio.live import remove_bucket
from components.nats.client import CLIENT_PORT, connect
from components.nats.client import STATEFULSET as NATS
from components.postgresql import client as postgresql
from components.qdrant.client import PORT, call
from components.qdrant.client import STATEFULSET as QDRANT

from .conftest import Backups, at_work, until
from .test_proofs import Prover, prover

__all__ = ["prover"]  # the fixture

pytestmark = pytest.mark.integration

NAME = "busy"
BUSY = ("nats", "qdrant", "emqx")
PAUSE_SECONDS = 0.02  # two cores are shared with what is tested


def of(access: Access, statefulset: str, port: int) -> list[Endpoint]:
    return access.endpoints(statefulset, 3, port)


def orders(access: Access, stop: threading.Event) -> None:
    """Publish to a stream, and acknowledge to its consumer."""

    async def publish_and_acknowledge() -> None:
        connection = await connect(access, of(access, NATS, CLIENT_PORT))
        try:
            stream = connection.jetstream(timeout=10)
            config = StreamConfig(name=NAME, subjects=[f"{NAME}.*"], num_replicas=3)
            await stream.add_stream(config)
            durable = ConsumerConfig(durable_name="clerk", ack_policy=AckPolicy.EXPLICIT)
            await stream.add_consumer(NAME, durable)
            consumer = await stream.pull_subscribe_bind("clerk", NAME)
            while not stop.is_set():
                await stream.publish(f"{NAME}.new", b"an order")
                (message,) = await consumer.fetch(1, timeout=10)
                await message.ack_sync()
                await asyncio.sleep(PAUSE_SECONDS)
            await stream.delete_stream(NAME)
        finally:
            await connection.close()

    asyncio.run(publish_and_acknowledge())


def points(access: Access, stop: threading.Event) -> None:
    """Add points to a collection."""
    peer, path = of(access, QDRANT, PORT)[0], f"/collections/{NAME}"
    vectors = {"vectors": {"size": 4, "distance": "Dot"}, "shard_number": 3}
    call(access, peer, "PUT", path, vectors, timeout=60)
    for number in count():
        if stop.wait(PAUSE_SECONDS):
            break
        one = {"id": number, "vector": [number, 1, 2, 3], "payload": {"n": number}}
        call(access, peer, "PUT", f"{path}/points?wait=true", {"points": [one]}, timeout=60)
    call(access, peer, "DELETE", path, timeout=60)


def retained(access: Access, stop: threading.Event) -> None:
    """Publish retained messages."""
    api = emqx.sign_on(access, of(access, emqx.STATEFULSET, emqx.API_PORT)[0])
    topics = []
    for number in count():
        topics.append(f"{NAME}/{number}")
        message = {"topic": topics[-1], "payload": str(number), "qos": 1, "retain": True}
        api("POST", "/publish", message).raise_for_status()
        if stop.wait(PAUSE_SECONDS * 5):
            break
    for topic in topics:
        message = {"topic": topic, "payload": "", "qos": 1, "retain": True}
        api("POST", "/publish", message).raise_for_status()


@pytest.fixture
def sets(backups: Backups, prover: Prover) -> Iterator[dict[str, Manifest]]:
    """Sets of engines at work; they go with the test."""
    with ExitStack() as clients:
        for work in (orders, points, retained):
            access = clients.enter_context(backups.access())
            clients.enter_context(at_work(partial(work, access)))
        backups.isa("backup", *BUSY, "--local")
    made = {component: backups.manifest(component) for component in BUSY}
    yield made
    for one in made.values():
        prover.forger.remove(one)


def test_sets_of_engines_at_work_are_proven(prover: Prover, sets: dict[str, Manifest]) -> None:
    moved = {name: [m for m in sets[name].fingerprint if m.until is not None] for name in sets}
    assert [m.unit for m in moved["qdrant"]] == [f"collection {NAME}"]
    # retained messages are measured in the export, bans and keys that expire have no digest of their own
    assert all(m.item.endswith("that expire") for m in moved["emqx"])
    found = prover.isa(*(one.id for one in sets.values()))
    told = {p["component"]: (p["verdict"], p["level"], p["reason"]) for p in found["proofs"]}
    assert {name: words[:2] for name, words in told.items()} == dict.fromkeys(
        BUSY, ("pass", "L4")
    ), told


def rows(access: Access, stop: threading.Event) -> None:
    """Insert rows, update them, and take numbers of a sequence."""
    with postgresql.at_primary(access, "isa", "search_path=public") as connection:
        connection.execute("CREATE TABLE busy (n serial, told text)")
        while not stop.wait(PAUSE_SECONDS):
            connection.execute("INSERT INTO busy (told) VALUES (now()::text)")
            connection.execute("UPDATE busy SET told = told || '!' WHERE n % 3 = 0")
        connection.execute("DROP TABLE busy")


@contextmanager
def standbys_behind(access: Access) -> Iterator[None]:
    """Standbys that replay nothing."""
    with ExitStack() as connected:
        standbys = [
            connected.enter_context(postgresql.connect_long(access, node))
            for node in of(access, postgresql.STATEFULSET, postgresql.PORT)
            if postgresql.node_status(access, node).standby
        ]
        for standby in standbys:
            standby.execute("SELECT pg_wal_replay_pause()")
        try:
            yield
        finally:
            for standby in standbys:
                standby.execute("SELECT pg_wal_replay_resume()")


def test_the_set_of_a_primary_at_work_is_proven(backups: Backups, prover: Prover) -> None:
    with backups.access() as access, standbys_behind(access), at_work(partial(rows, access)):
        backups.isa("backup", "postgresql", "--local")
    made = backups.manifest("postgresql")
    assert made.topology["role"] == "primary"
    assert {m.item for m in made.fingerprint if m.until is not None} == {"sequences"}
    assert made.topology["rows_changed"]["isa"]["public.busy"] > 0
    (proof,) = prover.isa(made.id)["proofs"]
    assert (proof["verdict"], proof["level"]) == ("pass", "L4"), proof
    prover.forger.remove(made)


def test_a_bucket_goes_though_its_clients_go_on_writing(backups: Backups) -> None:
    with backups.access() as access:
        client = minio.connect(access, of(access, minio.STATEFULSET, minio.PORT)[0])
        client.create_bucket(Bucket=NAME)
        versioned = {"Status": "Enabled"}
        client.put_bucket_versioning(Bucket=NAME, VersioningConfiguration=versioned)
        written: list[int] = []

        def write(stop: threading.Event) -> None:
            while not stop.is_set():
                try:
                    client.put_object(Bucket=NAME, Key=f"{len(written) % 9}", Body=b"a version")
                except client.exceptions.NoSuchBucket:
                    return
                except ClientError as exc:
                    if not exc.response["Error"]["Code"].startswith(("SlowDown", "IncompleteBody")):
                        raise
                    continue  # a busy MinIO says so, or of a bucket that goes, and clients try again
                written.append(1)

        with at_work(write):
            until(lambda: len(written) > 50, "clients write")
            remove_bucket(client, NAME)
        assert NAME not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]


def test_an_empty_bucket_with_a_lock_goes_too(backups: Backups) -> None:
    with backups.access() as access:
        client = minio.connect(access, of(access, minio.STATEFULSET, minio.PORT)[0])
        client.create_bucket(Bucket=NAME, ObjectLockEnabledForBucket=True)
        remove_bucket(client, NAME)
        assert NAME not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
