"""A consumer may be where its clients left it or begin where a restore made it again, and not have lost its place."""

from __future__ import annotations

from typing import Any

from components.nats.fingerprint import measures
from components.nats.streams.consumers import (
    BY_SEQUENCE,
    QUEUE,
    as_saved,
    taken_since,
    with_progress,
)
from components.nats.streams.messages import MessageStats

STREAM = {"retention": "limits"}
STATE = {"messages": 0, "last_seq": 9}


def consumer(policy: str, acknowledged: int, start: int = 0) -> dict[str, Any]:
    config = {"durable_name": "bills", "ack_policy": "explicit", "deliver_policy": policy}
    begins = {"opt_start_seq": start} if start else {}
    floor = {"stream_seq": acknowledged}
    return {"name": "bills", "config": {**config, **begins}, "ack_floor": floor}


def digest(consumers: list[dict[str, Any]]) -> str:
    return next(
        m.digest for m in measures("s", STATE, consumers, MessageStats()) if m.item == "consumers"
    )


def same(
    saved: dict[str, Any],
    there: dict[str, Any],
    *,
    at_work: bool = False,
    stream: dict[str, Any] = STREAM,
) -> bool:
    return digest([saved]) == digest(as_saved(stream, [there], [saved], at_work=at_work))


def test_one_that_was_made_again_is_the_one_that_was_saved() -> None:
    assert same(consumer("all", 4), consumer(BY_SEQUENCE, 4, start=5))


def test_one_that_begins_elsewhere_or_has_acknowledged_otherwise_is_another() -> None:
    assert not same(consumer("all", 4), consumer(BY_SEQUENCE, 4, start=3))
    assert not same(consumer("all", 4), consumer("all", 3))


def test_one_that_nobody_saved_stays_as_it_is() -> None:
    there = consumer(BY_SEQUENCE, 4, start=5)
    assert as_saved(STREAM, [there], []) == [there]


def test_one_that_acknowledged_while_its_stream_was_stored_may_be_anywhere_in_between() -> None:
    (saved,) = with_progress([consumer("all", 4)], [consumer("all", 7)])
    assert [same(saved, consumer("all", floor)) for floor in (3, 4, 6, 7, 8)] == [
        False, True, True, True, False,
    ]  # fmt: skip
    assert same(saved, consumer(BY_SEQUENCE, 4, start=5))  # made again: all of that comes once more


def test_one_that_was_removed_meanwhile_is_held_to_where_it_was() -> None:
    (saved,) = with_progress([consumer("all", 4)], [])
    assert same(saved, consumer("all", 4))
    assert not same(saved, consumer("all", 5))


def test_one_whose_clients_are_at_work_may_be_further_and_never_behind() -> None:
    assert same(consumer("all", 4), consumer("all", 9), at_work=True)
    assert not same(consumer("all", 4), consumer("all", 3), at_work=True)


def test_one_of_a_work_queue_may_begin_anew_for_what_it_had_acknowledged_is_gone() -> None:
    queue = {"retention": QUEUE}
    assert same(consumer("all", 4), consumer("all", 0), stream=queue)
    assert not same(consumer("all", 4), consumer("new", 4), stream=queue)


def counted(name: str, delivered: int, pending: int, floor: int = 0) -> dict[str, Any]:
    return {
        "name": name,
        "delivered": {"consumer_seq": delivered},
        "num_ack_pending": pending,
        "ack_floor": {"consumer_seq": floor},
    }


def test_what_was_taken_since_is_what_was_delivered_and_acknowledged() -> None:
    saved = [counted("bills", 9, 2, floor=7), counted("audit", 5, 0, floor=5)]
    assert taken_since(saved, saved) == 0
    assert taken_since([counted("bills", 13, 1), counted("audit", 5, 0)], saved) == 5
    # made again, and one that nobody saved
    assert taken_since([counted("bills", 3, 1), counted("new", 4, 1)], saved) == 5
