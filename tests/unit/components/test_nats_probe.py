"""What the gate of NATS writes is of its round alone, goes with it, and keeps nobody from anything."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from components.base import Check
from components.nats import readiness
from components.questions import PROBE

from .nats_double import MEMBERS, OLD, YOUNG, Access, JetStream

OVERLAP, NO_PEERS = (10065, "subjects overlap"), (10005, "no suitable peers for placement")


Ask = Callable[..., Check]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Asks whether a message is stored and read."""

    def answer(server: JetStream, up: tuple[str, ...] = MEMBERS) -> Check:
        monkeypatch.setattr(readiness, "connect", server.connect)
        checks = readiness.ask(cast(Any, Access(up))).checks
        return next(check for check in checks if check.name.startswith("message stored"))

    return answer


def test_a_round_makes_a_stream_of_its_own_and_leaves_none(ask: Ask) -> None:
    server = JetStream()
    assert [ask(server).verdict() for _ in range(2)] == ["ok", "ok"]
    first, second = server.made
    assert first["name"] != second["name"] and first["subjects"] != second["subjects"]
    assert server.streams == {}


def test_streams_of_rounds_under_way_and_of_clients_are_left_alone(ask: Ask) -> None:
    made_now = f"{PROBE}-{int(time.time())}-a"
    slow_clock = f"{PROBE}-1-a"  # old by its name, young by the clock of NATS
    there = {made_now: YOUNG, slow_clock: YOUNG, "CLIENTS": OLD, f"{PROBE}-1-b": OLD, PROBE: OLD}
    server = JetStream(there)
    assert ask(server).ok
    assert sorted(server.streams) == sorted([made_now, slow_clock, "CLIENTS"])


def test_a_stream_that_overlaps_makes_the_answer_unknown(ask: Ask) -> None:
    check = ask(JetStream(refuses={3: OVERLAP}))
    assert check.verdict() == "unknown"
    assert "another stream takes every subject" in check.hint


def test_what_the_user_may_not_do_makes_the_answer_unknown(ask: Ask) -> None:
    server = JetStream(violation="permissions violation for publish")
    check = ask(server)
    assert check.verdict() == "unknown"
    assert "user app does not have this permission: permissions violation for publish" in check.hint
    assert len(server.made) == 1


def test_any_other_refusal_is_trouble(ask: Ask) -> None:
    check = ask(JetStream(refuses={3: (10047, "insufficient storage")}))
    assert check.verdict() == "down"
    assert "insufficient storage" in check.hint


def test_a_stream_whose_first_leader_is_dead_is_given_up_for_another(ask: Ask) -> None:
    server = JetStream(silent=2)
    assert ask(server).ok
    assert len(server.made) == 3
    assert server.streams == {}


def test_with_a_server_away_the_message_is_stored_on_the_others(ask: Ask) -> None:
    server = JetStream(refuses={3: NO_PEERS})
    assert ask(server, up=MEMBERS[:2]).ok
    assert [made["num_replicas"] for made in server.made] == [3, 2]
