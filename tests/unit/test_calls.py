"""Each call to an engine, a server or a program is known while it lasts, and logged when it takes long."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest

from calls import CALLS, Calls, first_words
from cluster.command import Cancellation, Cancelled, Command
from components.access import Access, Endpoint
from components.minio import client as minio
from components.qdrant import client as qdrant
from components.redis import client as redis_client
from config.models import Settings


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_call_is_logged_when_it_takes_ten_seconds_then_twenty_then_forty(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    calls = Calls(clock)
    caplog.set_level(logging.INFO, "calls")
    with calls.open("PostgreSQL 10.0.0.1:5432/isa: SELECT count(*)"):
        for clock.now in (105.0, 111.0, 112.0, 121.0, 130.0, 141.0):
            calls.report()
    assert [record.getMessage() for record in caplog.records] == [
        f"waiting for PostgreSQL 10.0.0.1:5432/isa: SELECT count(*) for {seconds} s"
        for seconds in (11, 21, 41)
    ]


def test_a_call_that_has_ended_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    calls = Calls(clock)
    caplog.set_level(logging.INFO, "calls")
    with suppress(ValueError), calls.open("pg_dump"):
        raise ValueError
    clock.now += 60
    calls.report()
    assert not calls.pending()
    assert not caplog.records


def test_every_call_is_a_line_at_debug_with_how_it_ended(caplog: pytest.LogCaptureFixture) -> None:
    calls = Calls(Clock())
    caplog.set_level(logging.DEBUG, "calls")
    with calls.open("list_objects_v2 production/"):
        pass
    with suppress(TimeoutError), calls.open("GET /collections"):
        raise TimeoutError
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "list_objects_v2 production/: 0.00 s",
        "GET /collections: TimeoutError after 0.00 s",
    ]


@pytest.fixture
def silent() -> Iterator[Endpoint]:
    """A member that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Endpoint("member-0", "127.0.0.1", server.getsockname()[1], "127.0.0.1", "node")


@pytest.fixture
def access() -> Iterator[Access]:
    secrets = {
        "qdrant-auth": {"api-key": "long-enough-key"},
        "redis-auth": {"redis-password": "long-enough-key"},
        "minio-auth": {"rootUser": "root", "rootPassword": "long-enough-key"},
    }
    with Access(cast(Settings, SimpleNamespace()), cast(Any, None), 20.0, secrets) as opened:
        yield opened


@pytest.mark.parametrize(
    ("ask", "name"),
    [
        (
            lambda access, member: qdrant.get(access, member, "/collections?api_key=x"),
            "GET http://{url}/collections",
        ),
        (
            lambda access, member: redis_client.read_view(access, member),
            "Redis {url}: CLUSTER NODES",
        ),
        (
            lambda access, member: minio.connect(access, member).list_buckets(),
            "MinIO member-0: ListBuckets",
        ),
    ],
    ids=["qdrant", "redis", "minio"],
)
def test_a_member_that_hangs_is_named_with_the_operation(
    access: Access, silent: Endpoint, ask: Callable[[Access, Endpoint], Any], name: str
) -> None:
    def hang() -> None:
        with suppress(Exception):
            ask(access, silent)

    threading.Thread(target=hang, daemon=True).start()
    wanted = name.format(url=silent.url)
    deadline = time.monotonic() + 60
    while wanted not in [known for known, _ in CALLS.pending()]:
        assert time.monotonic() < deadline, CALLS.pending()
        time.sleep(0.01)


def test_a_program_that_hangs_is_named_with_its_process() -> None:
    cancellation = Cancellation()
    program = Command("sleep", cancellation=cancellation)

    def hang() -> None:
        with suppress(Cancelled):
            program.run("600", timeout=900)

    hung = threading.Thread(target=hang, daemon=True)
    hung.start()
    deadline = time.monotonic() + 60
    while not any(known.startswith("sleep 600 (pid ") for known, _ in CALLS.pending()):
        assert time.monotonic() < deadline, CALLS.pending()
        time.sleep(0.01)
    cancellation.cancel()
    hung.join(60)
    assert not any(known.startswith("sleep 600") for known, _ in CALLS.pending())


def test_a_statement_is_named_by_its_first_two_words_since_the_rest_may_be_a_password() -> None:
    secret = "ALTER ROLE app PASSWORD 'SCRAM-SHA-256$4096:x'"
    assert first_words(secret) == "ALTER ROLE"
    assert first_words(b"SELECT 1") == "SELECT 1"
