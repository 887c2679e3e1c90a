"""A stream that has not changed is not stored again; whatever can change moves its state."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from components.nats.streams.state import state_of

CONSUMER: dict[str, Any] = {
    "name": "billing",
    "created": "2026-01-01T00:00:00Z",
    "config": {"durable_name": "billing", "ack_policy": "explicit"},
    "delivered": {"consumer_seq": 9, "stream_seq": 8, "last_active": "2026-01-01T00:00:09Z"},
    "ack_floor": {"consumer_seq": 5, "stream_seq": 5, "last_active": "2026-01-01T00:00:09Z"},
    "num_ack_pending": 3,
    "num_redelivered": 1,
    "num_waiting": 1,
    "ts": "2026-01-02T00:00:00Z",
    "cluster": {"leader": "nats-0"},
}
# As 2.15.1 answers STREAM.INFO.
INFO: dict[str, Any] = {
    "created": "2026-01-01T00:00:00Z",
    "ts": "2026-01-02T00:00:00Z",
    "cluster": {"leader": "nats-0", "replicas": [{"name": "nats-1", "active": 5}]},
    "config": {"name": "ORDERS", "subjects": ["orders.>"], "max_msgs": -1, "metadata": {"a": "1"}},
    "state": {
        "messages": 7, "bytes": 700, "first_seq": 2, "first_ts": "2026-01-01T00:00:01Z",
        "last_seq": 9, "last_ts": "2026-01-01T00:00:08.000000001Z", "num_subjects": 3,
        "num_deleted": 1, "consumer_count": 1,
    },
}  # fmt: skip


def state(
    change: Callable[[dict[str, Any], list[dict[str, Any]]], Any] = lambda info, consumers: None,
    version: str = "2.15.1",
) -> dict[str, Any]:
    info, consumers = deepcopy(INFO), [deepcopy(CONSUMER)]
    change(info, consumers)
    return state_of(info, consumers, version)


CHANGES: dict[str, Callable[[dict[str, Any], list[dict[str, Any]]], Any]] = {
    "a message is stored": lambda i, c: i["state"].update(last_seq=10, messages=8),
    "one of another time": lambda i, c: i["state"].update(last_ts="2026-01-01T00:00:08.000000002Z"),
    "a message is deleted in the middle": lambda i, c: i["state"].update(messages=6, num_deleted=2),
    "the first message expires": lambda i, c: i["state"].update(first_seq=3),
    "the stream is created again": lambda i, c: i.update(created="2026-01-03T00:00:00Z"),
    "a setting changes": lambda i, c: i["config"].update(max_msgs=10),
    "its owner's metadata change": lambda i, c: i["config"]["metadata"].update(a="2"),
    "a durable consumer is created": lambda i, c: c.append({**CONSUMER, "name": "audit"}),
    "a consumer is deleted": lambda i, c: c.clear(),
    "a consumer is created again": lambda i, c: c[0].update(created="2026-01-03T00:00:00Z"),
    "a consumer's setting changes": lambda i, c: c[0]["config"].update(max_deliver=2),
    "a message is delivered": lambda i, c: c[0]["delivered"].update(consumer_seq=10),
    "a message is acknowledged": lambda i, c: c[0]["ack_floor"].update(stream_seq=6),
    "one is acknowledged out of order": lambda i, c: c[0].update(num_ack_pending=2),
    "a message is delivered again": lambda i, c: c[0].update(num_redelivered=2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_changes_in_a_stream_changes_its_state(change: Callable[..., Any]) -> None:
    assert state(change) != state()


def test_another_version_of_the_server_is_another_state() -> None:
    assert state(version="2.16.0") != state()


def test_what_moves_by_itself_does_not_change_the_state() -> None:
    def idle(info: dict[str, Any], consumers: list[dict[str, Any]]) -> None:
        info.update(ts="2026-01-09T00:00:00Z", cluster={"leader": "nats-2"})
        info["state"]["consumer_count"] = 2
        consumers[0].update(num_waiting=7, ts="2026-01-09T00:00:00Z", cluster={"leader": "nats-2"})
        consumers.insert(0, {**CONSUMER, "name": "x1y2", "config": {"ack_policy": "none"}})

    assert state(idle) == state()
