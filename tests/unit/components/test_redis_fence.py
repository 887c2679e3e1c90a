"""A fence that cannot be opened on one member is opened on all the others."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis

from components.access import Endpoint
from components.redis import live
from errors import TemporaryError

MEMBERS = [f"redis-cluster-{number}" for number in range(6)]
AWAY = MEMBERS[1]


def test_writers_are_let_in_wherever_a_member_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, list[str]] = {name: [] for name in MEMBERS}
    away: set[str] = set()

    @contextmanager
    def connect(access: object, member: Endpoint) -> Any:
        if member.member in away:
            raise redis.ConnectionError("connection refused")
        yield SimpleNamespace(execute_command=said[member.member].append)

    members = [SimpleNamespace(member=name, host="127.0.0.1") for name in MEMBERS]
    monkeypatch.setattr(live, "_members", lambda access: members)
    monkeypatch.setattr(live, "connect", connect)
    with pytest.raises(TemporaryError, match=AWAY), live.fence(cast(Any, None), ["all keys"]):
        away.add(AWAY)
    opened = {name for name, words in said.items() if "ACL SETUSER default +@all" in words}
    assert opened == set(MEMBERS) - {AWAY}
