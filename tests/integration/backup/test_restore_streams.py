"""Streams of every kind come back as they were, whoever works with them meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError

from components.access import Access
from components.nats.client import CLIENT_PORT, STATEFULSET, account
from components.nats.restore import _own
from components.nats.streams.consumers import consumers_of, make_missing_consumers

from .conftest import Restorer, at_work, until
from .streams import ask, connected, publish, take

pytestmark = pytest.mark.integration

FOLLOWERS: dict[str, dict[str, Any]] = {
    "COPY": {"mirror": {"name": "ORDERS"}},
    "GATHERED": {
        "sources": [{"name": "ORDERS", "filter_subject": "orders.paid"}],
        "republish": {"src": ">", "dest": "told.>"},
    },
}


@pytest.fixture
def followers(restorer: Restorer) -> Iterator[None]:
    """Streams that follow the one of the orders, and have all that it has."""
    with restorer.backups.access() as access:
        for name, ties in FOLLOWERS.items():
            config = {"name": name, "num_replicas": 3, "storage": "file", **ties}
            ask(access, (f"STREAM.CREATE.{name}", config))
        until(lambda: _last(access, "COPY") == _last(access, "ORDERS"), "the mirror has it all")
    yield
    with restorer.backups.access() as access:
        ask(access, *((f"STREAM.DELETE.{name}", None) for name in FOLLOWERS))


def _last(access: Access, stream: str) -> int:
    return int(ask(access, (f"STREAM.INFO.{stream}", None))[0]["state"]["last_seq"])


def test_streams_come_back_following_what_they_followed_and_the_others_are_left_alone(
    restorer: Restorer, followers: None
) -> None:
    good = restorer.take("nats")
    restorer.prove(good)
    with restorer.backups.access() as access:
        # whoever follows the orders has one more than the set when he is compared with it
        ask(access, ("STREAM.PURGE.COPY", {}))
        publish(access, "orders.paid")
        newest = _last(access, "ORDERS")
    (done,) = restorer.isa(good.id, "--unit", "app/COPY", "--unit", "app/GATHERED")["restores"]
    assert done["outcome"] == "restored", done
    with restorer.backups.access() as access:
        assert _last(access, "ORDERS") == newest
        until(lambda: _last(access, "COPY") == newest, "the mirror goes on")
        for name, ties in FOLLOWERS.items():
            (info,) = ask(access, (f"STREAM.INFO.{name}", None))
            assert {key: info["config"].get(key) for key in ties} == ties
            assert info["config"]["num_replicas"] == 3
    report = restorer.isa(good.id, "--unit", "nonsense", code=2)
    assert "app/ORDERS" in report["faults"][0]


# Whose messages are read one by one: a consumer of ours would be refused in the first and third.
KINDS: dict[str, dict[str, Any]] = {
    "QUEUE": {"retention": "workqueue"},
    "WATCHED": {"retention": "interest"},
    "CROWDED": {"max_consumers": 1},
    "FIRM": {"deny_delete": True, "deny_purge": True},
    "SHORT": {"max_msgs": 10, "max_age": 3600 * 1_000_000_000},
    "RENAMED": {"subject_transform": {"src": "RENAMED.>", "dest": "now.>"}},
    "COUNTED": {"allow_msg_counter": True, "allow_direct": True},
    "SEALED": {},
}
MESSAGES, TAKEN = 20, 8


def _make(access: Access, name: str) -> None:
    config = {"name": name, "subjects": [f"{name}.>"], "num_replicas": 3, "storage": "file"}
    config |= KINDS[name]
    worker = {"durable_name": "worker", "ack_policy": "explicit"}
    ask(access, (f"STREAM.CREATE.{name}", config))
    body = {"stream_name": name, "config": worker}
    ask(access, (f"CONSUMER.DURABLE.CREATE.{name}.worker", body))
    headers = {"Nats-Incr": "2"} if name == "COUNTED" else {"Colour": "grün"}
    publish(access, f"{name}.a", MESSAGES, **headers)
    take(access, name, "worker", TAKEN)
    if name == "SEALED":
        ask(access, (f"STREAM.UPDATE.{name}", {**config, "sealed": True}))


@pytest.fixture
def kinds(restorer: Restorer) -> Iterator[None]:
    with restorer.backups.access() as access:
        try:
            for name in KINDS:
                _make(access, name)
            yield
        finally:
            there = ask(access, ("STREAM.NAMES", None))[0]["streams"]
            ask(access, *((f"STREAM.DELETE.{name}", None) for name in KINDS if name in there))


def _described(access: Access) -> dict[str, Any]:
    found = {}
    for name in KINDS:
        stream, worker = ask(
            access, (f"STREAM.INFO.{name}", None), (f"CONSUMER.INFO.{name}.worker", None)
        )
        config = {key: value for key, value in stream["config"].items() if key != "metadata"}
        state = {key: stream["state"][key] for key in ("messages", "first_seq", "last_seq")}
        floor = worker["ack_floor"]["stream_seq"]
        found[name] = {"config": config, "state": state, "acknowledged": floor}
    return found


def test_streams_of_every_kind_come_back_as_they_were(restorer: Restorer, kinds: None) -> None:
    with restorer.backups.access() as access:
        before = _described(access)
    good = restorer.take("nats")
    restorer.prove(good)
    with restorer.backups.access() as access:
        ask(access, *((f"STREAM.DELETE.{name}", None) for name in KINDS))
    chosen = [word for name in KINDS for word in ("--unit", f"app/{name}")]
    (done,) = restorer.isa(good.id, *chosen)["restores"]
    assert done["outcome"] == "restored", done
    with restorer.backups.access() as access:
        assert _described(access) == before
    restorer.ready("nats")


@pytest.fixture
def timed(restorer: Restorer) -> Iterator[None]:
    """A stream that half of its messages leave by themselves, and that a message comes to by its schedule."""
    allowed = {"allow_msg_ttl": True, "allow_msg_schedules": True, "allow_rollup_hdrs": True}
    config = {"name": "TIMED", "subjects": ["TIMED.>"], "num_replicas": 3, "storage": "file"}
    with restorer.backups.access() as access:
        ask(access, ("STREAM.CREATE.TIMED", {**config, **allowed}))
        publish(access, "TIMED.stays", MESSAGES)
        yearly = {"Nats-Schedule": "@every 8760h", "Nats-Schedule-Target": "TIMED.made"}
        publish(access, "TIMED.yearly", 1, **yearly)
        lifetime = {"Nats-TTL": "45s"}
        publish(access, "TIMED.goes", MESSAGES, **lifetime)
    yield
    with restorer.backups.access() as access:
        ask(access, ("STREAM.DELETE.TIMED", None))


def test_messages_whose_own_time_has_run_out_are_missed_by_nobody(
    restorer: Restorer, timed: None
) -> None:
    def left() -> int:
        with restorer.backups.access() as access:
            state = ask(access, ("STREAM.INFO.TIMED", None))[0]["state"]
            return int(state["messages"])

    good = restorer.take("nats")
    counted = {m.item: m for m in good.fingerprint if m.unit == "stream app/TIMED"}
    assert counted["messages"].count == MESSAGES and counted["messages"].digest
    assert counted["messages that expire"].count == MESSAGES + 1
    until(lambda: left() == MESSAGES + 1, "the others have gone")
    restorer.prove(good)
    (done,) = restorer.isa(good.id, "--unit", "app/TIMED")["restores"]
    assert done["outcome"] == "restored", done
    assert left() == MESSAGES + 1


def clients(access: Access, stream: str, stop: threading.Event) -> None:
    """Publish to a stream, and have its worker take and acknowledge."""

    async def work(client: Client) -> None:
        context = client.jetstream(timeout=1)
        pull = await context.pull_subscribe_bind("worker", stream)
        while not stop.is_set():
            with suppress(NatsError):  # it is away for a while
                for message in await pull.fetch(2, timeout=1):
                    await message.ack()
                await context.publish(f"{stream}.b", b"new")

    connected(access, work)


@pytest.mark.parametrize("name", ["QUEUE", "WATCHED", "SHORT", "FIRM"])
def test_a_stream_whose_clients_are_at_work_is_restored_and_found_well(
    name: str, restorer: Restorer, kinds: None
) -> None:
    good = restorer.take("nats")
    with restorer.backups.access() as access, at_work(partial(clients, access, name)):
        (done,) = restorer.isa(good.id, "--unit", f"app/{name}")["restores"]
    assert done["outcome"] == "restored", done


def test_a_work_queues_consumer_that_a_snapshot_left_out_is_made_again(
    restorer: Restorer, kinds: None
) -> None:
    with restorer.backups.access() as access:
        servers = access.endpoints(STATEFULSET, 3, CLIENT_PORT)
        (info,) = ask(access, ("STREAM.INFO.QUEUE", None))
        with account(access, servers, _own()) as own:
            saved = consumers_of(own, "QUEUE")
            ask(access, ("CONSUMER.DELETE.QUEUE.worker", None))
            make_missing_consumers(own, info["config"], saved)
            (again,) = consumers_of(own, "QUEUE")
        assert again["num_pending"] == MESSAGES - TAKEN


@pytest.fixture
def lowered(restorer: Restorer) -> Iterator[None]:
    """A stream with messages from before its limit of size was lowered."""
    config = {"name": "LOWERED", "subjects": ["LOWERED.>"], "num_replicas": 3, "storage": "file"}
    with restorer.backups.access() as access:
        ask(access, ("STREAM.CREATE.LOWERED", config))
        publish(access, "LOWERED.a", MESSAGES, Colour="grün")
        ask(access, ("STREAM.UPDATE.LOWERED", {**config, "max_msg_size": 10}))
    yield
    with restorer.backups.access() as access:
        there = ask(access, ("STREAM.NAMES", None))[0]["streams"]
        names = [name for name in ("LOWERED", "TAKEN") if name in there]
        ask(access, *((f"STREAM.DELETE.{name}", None) for name in names))


def test_messages_beyond_a_limit_that_was_lowered_come_back_and_the_limit_with_them(
    restorer: Restorer, lowered: None
) -> None:
    good = restorer.take("nats")
    restorer.prove(good)
    (done,) = restorer.isa(good.id, "--unit", "app/LOWERED")["restores"]
    assert done["outcome"] == "restored", done
    with restorer.backups.access() as access:
        (info,) = ask(access, ("STREAM.INFO.LOWERED", None))
        assert (info["state"]["messages"], info["config"]["max_msg_size"]) == (MESSAGES, 10)
        other = {"name": "LOWERED", "subjects": ["elsewhere"], "num_replicas": 3}
        ask(access, ("STREAM.UPDATE.LOWERED", other))
        ask(access, ("STREAM.CREATE.TAKEN", {"name": "TAKEN", "subjects": ["LOWERED.a"]}))
    report = restorer.isa(good.id, "--unit", "app/LOWERED", code=1)
    assert "overlaps with LOWERED.a of stream TAKEN" in report["message"]
    with restorer.backups.access() as access:  # nothing was deleted
        (info,) = ask(access, ("STREAM.INFO.LOWERED", None))
        assert info["state"]["messages"] == MESSAGES


@pytest.fixture
def passing(restorer: Restorer) -> Iterator[None]:
    """A stream that an ephemeral consumer keeps, and one that has messages beyond their lifetime."""
    common = {"num_replicas": 3, "storage": "file"}
    lives, gathers = {"name": "LIVES", "subjects": ["LIVES.>"]}, {"name": "GATHERS"}
    seconds = 1_000_000_000
    with restorer.backups.access() as access:
        heard = {"name": "HEARD", "subjects": ["HEARD.>"], "retention": "interest", **common}
        consumer = {"ack_policy": "explicit", "inactive_threshold": 60 * seconds}
        ask(
            access,
            ("STREAM.CREATE.HEARD", heard),
            ("CONSUMER.CREATE.HEARD", {"stream_name": "HEARD", "config": consumer}),
            ("STREAM.CREATE.LIVES", {**lives, **common, "allow_msg_ttl": True}),
            ("STREAM.CREATE.GATHERS", {**gathers, **common, "sources": [{"name": "LIVES"}]}),
        )
        publish(access, "HEARD.a", MESSAGES)
        publish(access, "LIVES.a", MESSAGES, **{"Nats-TTL": "1s"})
        until(lambda: _last(access, "GATHERS") == MESSAGES, "it has them all")

        def left() -> int:
            return int(ask(access, ("STREAM.INFO.LIVES", None))[0]["state"]["messages"])

        until(lambda: not left(), "they have gone where they were published")
    yield
    with restorer.backups.access() as access:
        ask(access, *((f"STREAM.DELETE.{name}", None) for name in ("HEARD", "GATHERS", "LIVES")))


def test_what_time_takes_fails_no_proof_and_is_named_where_a_restore_would_lose_it(
    restorer: Restorer, passing: None
) -> None:
    restorer.backups.isa("backup", "nats", "--local", code=1)
    good = restorer.backups.manifest("nats")
    (missing,) = good.missing
    assert missing.startswith(f"stream app/GATHERS: {MESSAGES} messages are older than")
    restorer.prove(good)
    report = restorer.isa(good.id, "--unit", "app/GATHERS", code=1)
    assert "would not restore" in report["message"]
    assert restorer.isa(good.id, "--unit", "app/HEARD")["restores"][0]["outcome"] == "restored"
