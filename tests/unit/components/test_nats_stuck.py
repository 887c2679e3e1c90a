"""A stream that JetStream does not answer for, or that is deleted meanwhile, costs the set nothing but that stream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from archive.backup.manifest import Consistency
from components.base import BackupContent
from components.nats import backup
from components.nats.client import NO_STREAM, Account, AccountRefused, Refused, Unanswered
from config.sections.backups import NatsAccount
from errors import PermanentError, TemporaryError


class Writer:
    """Remembers what it dropped."""

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self.earlier = self.artefacts = ()
        self.interval = False

    def drop(self, folder: str) -> None:
        self.dropped.append(folder)


class JetStream:
    """Does not answer for some streams so many times.

    Args:
        troubles: stream → times.
        up: whether it answers for itself.
        deleted: a stream that is gone when its turn comes.
        refused: a stream that the server refuses to give.
    """

    def __init__(
        self, troubles: dict[str, int], *, up: bool = True, deleted: str = "", refused: str = ""
    ) -> None:
        self.troubles, self.up, self.deleted, self.refused = troubles, up, deleted, refused
        self.asked: list[str] = []

    def store(self, access: Any, writer: Any, held: Any, account: Any, name: str, _: str) -> str:
        self.asked.append(name)
        if name == self.deleted:
            raise Refused("CONSUMER.LIST", NO_STREAM, "stream not found")
        if name == self.refused:
            raise Refused("STREAM.SNAPSHOT", 10081, "snapshot failed")
        if self.troubles.get(name, 0):
            self.troubles[name] -= 1
            raise Unanswered("no leader")
        return "stored"

    async def call(self, client: Any, subject: str, *, timeout: float) -> dict[str, Any]:
        if not self.up:
            raise Unanswered("nobody there")
        return {}


def stored(server: JetStream, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], list[str]]:
    """What became of the streams, and what was dropped."""
    monkeypatch.setattr(backup, "_names", lambda *_: ["A", "B", "C"])
    monkeypatch.setattr(backup, "_stream", server.store)
    monkeypatch.setattr(backup, "call", server.call)
    loop, writer = asyncio.new_event_loop(), Writer()
    connected = Account("app", cast(Any, None), loop)
    access = SimpleNamespace(timeout_seconds=1.0)
    try:
        there = (cast(Any, access), cast(Any, writer), cast(Any, None), connected, "2.15.1")
        found = dict(backup._streams(*there))
    finally:
        loop.close()
    return found, writer.dropped


def test_one_that_is_late_is_stored_behind_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    server = JetStream({"A": 1})
    found, dropped = stored(server, monkeypatch)
    assert found == dict.fromkeys(("app/A", "app/B", "app/C"), "stored")
    assert (server.asked, dropped) == (["A", "B", "C", "A"], ["app/A/"])


def test_one_that_stays_away_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    found, dropped = stored(JetStream({"B": 9}), monkeypatch)
    assert found == {"app/A": "stored", "app/B": "no leader", "app/C": "stored"}
    assert dropped == ["app/B/"] * 2


def test_where_nothing_answers_the_backup_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TemporaryError, match="nobody there"):
        stored(JetStream({"A": 1}, up=False), monkeypatch)


def test_one_that_is_deleted_meanwhile_is_none_of_the_set(monkeypatch: pytest.MonkeyPatch) -> None:
    found, dropped = stored(JetStream({}, deleted="B"), monkeypatch)
    assert (found, dropped) == ({"app/A": "stored", "app/C": "stored"}, ["app/B/"])


def test_one_that_the_server_refuses_costs_the_set_that_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, dropped = stored(JetStream({}, refused="B"), monkeypatch)
    assert found == {"app/A": "stored", "app/B": "snapshot failed (10081)", "app/C": "stored"}
    assert dropped == ["app/B/"]


def backed_up(monkeypatch: pytest.MonkeyPatch, *refused: str) -> BackupContent:
    """A backup of two accounts, of which some users are refused; each other one has a stream without messages."""

    @contextmanager
    def account(access: Any, servers: Any, declared: NatsAccount) -> Iterator[Any]:
        if declared.user in refused:
            raise AccountRefused(f"user {declared.user} cannot connect to NATS")
        client = SimpleNamespace(_server_info={"version": "2.15.1"})
        yield SimpleNamespace(user=declared.user, client=client)

    def streams(access: Any, writer: Any, held: Any, connected: Any, version: str) -> Any:
        now = datetime.now(UTC)
        unit = f"stream {connected.user}/A"
        moment = Consistency(unit=unit, point="sequence 0", begun=now, ended=now)
        yield f"{connected.user}/A", backup.StreamBackup([], moment, {}, [])

    monkeypatch.setattr(backup, "account", account)
    monkeypatch.setattr(backup, "_streams", streams)
    other = NatsAccount(user="analytics", secret="analytics", key="password")
    settings = SimpleNamespace(
        components=SimpleNamespace(nats=SimpleNamespace(members=3)),
        backup=SimpleNamespace(nats=SimpleNamespace(accounts=(other,), full_every_days=1)),
    )
    access = SimpleNamespace(settings=settings, endpoints=lambda *_: [])
    return backup.back_up(cast(Any, access), cast(Any, Writer()))


def test_an_account_that_refuses_costs_the_set_that_account(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = backed_up(monkeypatch, "analytics")
    assert list(taken.topology["streams"]) == ["app/A"]
    assert taken.missing == ("account analytics: user analytics cannot connect to NATS",)


def test_the_platforms_own_account_ends_the_backup(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PermanentError, match="user app"):
        backed_up(monkeypatch, "app")
