"""Messages that time takes are counted apart: a restore may have any number of them, and all of the others."""

from __future__ import annotations

import time
from typing import Any

import pytest

from archive.backup.manifest import Measure
from components.nats.fingerprint import measures
from components.nats.streams.messages import MessageStats, Reading, expires, lifetime_seconds
from operations.verify.comparison import compare

STATE = {"messages": 5, "num_subjects": 4, "last_seq": 9}


def read(*headers: dict[str, str] | None, apart: bool = True) -> MessageStats:
    found = Reading(apart)
    for sequence, one in enumerate(headers):
        found.add(sequence, "0", "subject", one, b"")
    return found.stats


def differing(wanted: list[Measure], messages: int, expiring: int, digest: str = "d") -> list[str]:
    seen = MessageStats(messages + expiring, digest, expiring, apart=True)
    state = {"messages": seen.count, "num_subjects": 4, "last_seq": 9}
    found = compare(wanted, {"": measures("s", state, [], seen)})
    return [one.item for one in found]


def test_what_ends_by_itself_is_told_by_its_headers() -> None:
    seen = read(
        None, {"Nats-TTL": "1m"}, {"Nats-TTL": "never"}, {"Nats-Schedule": "@every 1h"}, {"A": "b"}
    )
    assert (seen.count, seen.expiring) == (5, 2)
    assert read({"Nats-TTL": "1m"}, apart=False).expiring == 0


def test_how_many_have_outlived_themselves_is_counted_in_their_own_time() -> None:
    now = time.time_ns()
    found = Reading(apart=True)
    for age, lifetime in ((61, "1m"), (59, "1m"), (61, "60"), (99, "never"), (5400, "1h29m59s")):
        found.add(1, str(now - age * 1_000_000_000), "subject", {"Nats-TTL": lifetime}, b"")
    assert found.stats.overdue == 3


def test_a_lifetime_of_a_digit_that_is_no_number_has_no_end() -> None:
    assert lifetime_seconds("²") == 0


def test_the_largest_message_is_counted_with_its_headers_as_they_are_sent() -> None:
    found = Reading(apart=True)
    found.add(1, "0", "subject", None, b"12345")
    found.add(2, "0", "subject", {"A": "b"}, b"12")
    assert found.stats.largest == len(b"NATS/1.0\r\nA: b\r\n\r\n12")


def idle(name: str, **config: Any) -> dict[str, Any]:
    """A consumer that goes when nobody has used it for a minute."""
    settings = {"durable_name": name, "inactive_threshold": 60_000_000_000, **config}
    return {"name": name, "config": settings, "ack_floor": {}}


def test_a_consumer_that_nobody_uses_may_be_gone_and_the_others_may_not() -> None:
    stays = {"name": "b", "config": {"durable_name": "b"}, "ack_floor": {}}
    seen = MessageStats(5, "d")

    def differences(consumers: list[dict[str, Any]]) -> list[str]:
        wanted = measures("s", STATE, [idle("a"), stays], seen, consumers_apart=True)
        there = measures("s", STATE, consumers, seen, consumers_apart=True)
        return [one.item for one in compare(wanted, {"": there})]

    assert differences([stays]) == differences([idle("a"), stays]) == []
    assert differences([idle("a")]) == ["consumers"]


def test_a_set_that_counted_all_consumers_together_is_compared_so() -> None:
    wanted = measures("s", STATE, [idle("a")], MessageStats(5, "d"))
    assert [one.item for one in wanted if "consumers" in one.item] == ["consumers"]
    assert compare(wanted, {"": measures("s", STATE, [idle("a")], MessageStats(5, "d"))}) == ()


def test_a_stream_allows_it_or_not() -> None:
    assert expires({"allow_msg_ttl": True}) and expires({"allow_msg_schedules": True})
    assert not expires({"allow_msg_ttl": False})


@pytest.mark.parametrize("left", [0, 1, 2])
def test_any_number_of_them_may_come_back(left: int) -> None:
    wanted = measures("s", STATE, [], MessageStats(5, "d", 2, apart=True))
    assert differing(wanted, 3, left) == []


def test_the_others_are_all_missed() -> None:
    wanted = measures("s", STATE, [], MessageStats(5, "d", 2, apart=True))
    assert differing(wanted, 2, 2) == ["messages"]
    assert differing(wanted, 3, 2, "other") == ["messages"]
    assert differing(wanted, 3, 4) == ["messages that expire"]


def test_of_what_had_left_before_it_was_read_nobody_knows_which_it_was() -> None:
    wanted = measures("s", STATE, [], MessageStats(4, "d", 1, apart=True))
    assert differing(wanted, 3, 2) == differing(wanted, 4, 0) == []
    assert differing(wanted, 1, 2) == differing(wanted, 6, 0) == ["messages"]
