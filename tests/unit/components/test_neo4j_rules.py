"""A database that is set to be read only says nothing bad of the server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from neo4j.exceptions import Neo4jError

from components.access import Endpoint
from components.base import Check
from components.neo4j import readiness

MEMBER = Endpoint("neo4j-1-0", "10.0.0.1", 7687, "10.0.0.1", "node")
ROW = {
    "name": "neo4j", "address": "localhost:7687", "role": "primary", "writer": True, "requestedStatus": "online",
    "currentStatus": "online", "statusMessage": "", "replicationLag": 0,
}  # fmt: skip


def written(monkeypatch: pytest.MonkeyPatch, code: str) -> Check:
    """What the gate says where the server refuses a write with this code."""

    def refuse(*_: Any) -> str:
        raise Neo4jError._hydrate_neo4j(code=code, message="no")

    monkeypatch.setattr(readiness, "members_of", lambda _: [MEMBER])
    monkeypatch.setattr(readiness, "query", lambda *_: [ROW])
    monkeypatch.setattr(readiness, "_transaction", refuse)
    neo4j = SimpleNamespace(edition="community", members=1)
    access: Any = SimpleNamespace(settings=SimpleNamespace(components=SimpleNamespace(neo4j=neo4j)))
    checks = readiness.ask(access).checks
    return next(check for check in checks if check.name.startswith("node written"))


@pytest.mark.parametrize("code", sorted(readiness.READ_ONLY))
def test_a_read_only_database_is_unknown_and_not_down(
    monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    found = written(monkeypatch, code)
    assert (found.ok, found.unknown) == (True, True)
    assert "read only" in found.hint


def test_any_other_refusal_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not written(monkeypatch, "Neo.TransientError.General.DatabaseUnavailable").ok
