"""Messages that time takes are counted apart: a restore may have any number of them, and all of the others."""

from __future__ import annotations

import pytest

from archive.manifest import Measure
from components.nats.fingerprint import Seen, _Reading, expires, measures
from operations.comparison import compare

STATE = {"messages": 5, "num_subjects": 4, "last_seq": 9}


def read(*headers: dict[str, str] | None, apart: bool = True) -> Seen:
    found = _Reading(apart)
    for sequence, one in enumerate(headers):
        found.add(sequence, "0", "subject", one, b"")
    return found.seen


def differing(wanted: list[Measure], messages: int, expiring: int, digest: str = "d") -> list[str]:
    seen = Seen(messages + expiring, digest, expiring, apart=True)
    state = {"messages": seen.count, "num_subjects": 4, "last_seq": 9}
    found = compare(wanted, {"": measures("s", state, [], seen)})
    return [one.item for one in found]


def test_what_ends_by_itself_is_told_by_its_headers() -> None:
    seen = read(
        None, {"Nats-TTL": "1m"}, {"Nats-TTL": "never"}, {"Nats-Schedule": "@every 1h"}, {"A": "b"}
    )
    assert (seen.count, seen.expiring) == (5, 2)
    assert read({"Nats-TTL": "1m"}, apart=False).expiring == 0


def test_a_stream_allows_it_or_not() -> None:
    assert expires({"allow_msg_ttl": True}) and expires({"allow_msg_schedules": True})
    assert not expires({"allow_msg_ttl": False})


@pytest.mark.parametrize("left", [0, 1, 2])
def test_any_number_of_them_may_come_back(left: int) -> None:
    wanted = measures("s", STATE, [], Seen(5, "d", 2, apart=True))
    assert differing(wanted, 3, left) == []


def test_the_others_are_all_missed() -> None:
    wanted = measures("s", STATE, [], Seen(5, "d", 2, apart=True))
    assert differing(wanted, 2, 2) == ["messages"]
    assert differing(wanted, 3, 2, "other") == ["messages"]
    assert differing(wanted, 3, 4) == ["messages that expire"]


def test_of_what_had_left_before_it_was_read_nobody_knows_which_it_was() -> None:
    wanted = measures("s", STATE, [], Seen(4, "d", 1, apart=True))
    assert differing(wanted, 3, 2) == differing(wanted, 4, 0) == []
    assert differing(wanted, 1, 2) == differing(wanted, 6, 0) == ["messages"]
