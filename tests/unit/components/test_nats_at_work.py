"""A live stream is used while it is compared: what clients brought and took is no loss, and anything more is one."""

from __future__ import annotations

from typing import Any

import pytest

from archive.backup.manifest import Measure
from components.nats.live import at_saved, may_have_gone
from operations.verify.comparison import compare

SECOND = 1_000_000_000
SAVED = {
    "first_seq": 3,
    "last_seq": 10,
    "messages": 8,
    "num_subjects": 2,
    "first_ts": "1970-01-01T00:01:40.5Z",
}
WORKER = {
    "name": "worker",
    "config": {"durable_name": "worker"},
    "delivered": {"consumer_seq": 2},
    "num_ack_pending": 0,
    "ack_floor": {"consumer_seq": 2},
}


def stream(last: int, messages: int, first: int = 3, **config: Any) -> dict[str, Any]:
    state = {"first_seq": first, "last_seq": last, "messages": messages, "num_subjects": 3}
    return {"config": {"retention": "limits", **config}, "state": state}


def gone(info: dict[str, Any], delivered: int = 2, now: int = 100) -> int:
    worker = {**WORKER, "delivered": {"consumer_seq": delivered}}
    return may_have_gone(info, SAVED, [worker], [WORKER], now * SECOND)


def test_what_was_published_since_is_left_out() -> None:
    now = stream(14, 12)["state"]
    assert at_saved(now, SAVED) == {**now, "last_seq": 10, "messages": 8, "num_subjects": 2}
    same = stream(10, 8)["state"]
    assert at_saved(same, SAVED) == same


def test_clients_take_from_a_queue_and_from_what_is_kept_for_interest_only() -> None:
    assert gone(stream(10, 5, retention="workqueue"), delivered=5) == 3
    assert gone(stream(10, 5, retention="interest"), delivered=5) == 3
    assert gone(stream(10, 5), delivered=5) == 0


def test_a_stream_of_interest_is_emptied_when_its_last_consumer_goes_by_itself() -> None:
    ephemeral = {**WORKER, "name": "x1", "config": {}}
    idle = {**WORKER, "config": {"durable_name": "worker", "inactive_threshold": SECOND}}
    interest = stream(10, 0, retention="interest")
    for gone_by_itself in (ephemeral, idle):
        assert may_have_gone(interest, SAVED, [], [gone_by_itself], 100 * SECOND) == 8
        assert may_have_gone(interest, SAVED, [gone_by_itself], [gone_by_itself], 0) == 0
        assert may_have_gone(stream(10, 0), SAVED, [], [gone_by_itself], 0) == 0
    assert may_have_gone(interest, SAVED, [], [WORKER], 0) == 0


def test_a_stream_that_is_full_drops_no_more_than_was_published() -> None:
    assert gone(stream(14, 8, max_msgs=8)) == 4
    assert gone(stream(14, 8, max_msgs_per_subject=1)) == 4
    assert gone(stream(14, 8, max_msgs=-1)) == 0
    assert gone(stream(14, 8, first=9, max_bytes=100)) == 6
    assert gone(stream(10, 2, first=9, max_bytes=100)) == 0


def test_the_oldest_go_by_their_age_and_not_before() -> None:
    aged = stream(10, 2, first=9, max_age=60 * SECOND)
    assert gone(aged, now=160) == 0
    assert gone(aged, now=161) == 6
    assert gone(stream(10, 0, first=11, max_age=60 * SECOND), now=999) == 8


def measure(count: int, until: int | None = None) -> Measure:
    return Measure(unit="s", item="messages", count=count, until=until, digest="", origin="source")


@pytest.mark.parametrize(("there", "until", "lost"), [(5, 8, False), (4, 7, True), (9, 10, True)])
def test_so_many_may_be_missing_and_no_more(there: int, until: int, lost: bool) -> None:
    found = compare([measure(8)], {"": [measure(there, until)]})
    assert bool(found) is lost
    assert not lost or "instead of 8" in found[0].what
