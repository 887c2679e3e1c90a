"""Rounds of the gate that are under way at the same time do not meet: each writes keys of its own, which expire."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from redis.crc import key_slot

from components.redis.readiness import ask, probe_key

from .redis_double import Server, three_shards

ROUNDS = 3


class Slow(Server):
    """Acknowledges a write when all rounds have written."""

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.all_wrote = Barrier(ROUNDS, timeout=10)

    def on_wait(self, *words: bytes) -> Any:
        self.all_wrote.wait()
        return super().on_wait(*words)


def test_three_rounds_at_once_are_all_well_and_leave_nothing() -> None:
    cluster = three_shards(of=Slow)
    with cluster.served() as access, ThreadPoolExecutor(ROUNDS) as pool:
        for _ in range(3):
            reports = list(pool.map(lambda _: ask(access), range(ROUNDS)))
            assert [one.hint for report in reports for one in report.checks if not one.ok] == []
    assert not any(server.keys for server in cluster.servers)


def test_what_a_killed_round_leaves_expires_by_itself() -> None:
    cluster = three_shards()
    with cluster.served() as access:
        ask(access)
    written = [said for server in cluster.servers for said in server.said if said[:4] == "SET "]
    assert len(written) == 3
    assert all(re.search(r" EX 60$", said) for said in written)


def test_a_key_of_a_round_lies_in_the_slot_that_it_tries() -> None:
    one, other = probe_key("aa", 12345), probe_key("bb", 12345)
    assert one != other
    assert key_slot(one.encode()) == key_slot(other.encode()) == 12345
