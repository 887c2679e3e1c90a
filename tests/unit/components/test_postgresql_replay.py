"""A standby is held still for a backup at a moment at which all can be read, and goes on whatever happens to us."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest

from components.access import Access, Endpoint
from components.postgresql.base_backup import replay
from components.postgresql.base_backup.replay import Pause, paused_replay
from errors import TemporaryError

NODE = Endpoint("postgresql-ha-postgresql-1", "10.0.0.1", 5432, "10.0.0.1", "")
ACCESS = cast(Access, SimpleNamespace(secret=lambda *_: "password"))


@dataclass
class Standby:
    """A server that replays.

    Attributes:
        paused: whether its replay is held.
        point: LSN up to which it has replayed.
        obeys: whether it pauses when it is told to.
        promoted: whether it takes writes by now.
        lost: whether it answers nobody any more.
        locks: what is locked on the primary, at one look after another.
        guards: blocks that look whether the holder is still there.
        holder_gone: set once the holder has closed its session.
        said: statements, in order.
    """

    paused: bool = False
    point: str = "0/1A"
    obeys: bool = True
    promoted: bool = False
    lost: bool = False
    locks: list[list[tuple[str, str]]] = field(default_factory=list)
    guards: list[str] = field(default_factory=list)
    holder_gone: Event = field(default_factory=Event)
    said: list[str] = field(default_factory=list)

    def connect(self, **given: Any) -> Any:
        """As `psycopg.connect`; the first session holds the pause."""
        return Session(self, given)

    def answer(self, text: str) -> list[Any]:
        self.said.append(text)
        if self.lost:
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        if "DO $$" in text:
            self.guards.append(text)
            assert self.holder_gone.wait(10)
            self.paused = False
        elif "backend_start::text" in text:
            return [(4711, "2026-01-01 00:00:00+00")]
        elif "pg_wal_replay_pause()" in text:
            self.paused = self.obeys
        elif "pause_state" in text:
            return [("paused" if self.paused else "pause requested", self.point)]
        elif "AccessExclusiveLock" in text:
            return self.locks.pop(0) if self.locks else []
        elif "pg_wal_replay_resume" in text:
            self.paused = False
        elif "pg_is_in_recovery(), " in text:
            return [(not self.promoted, self.point)]
        return []


class Session:
    def __init__(self, standby: Standby, given: dict[str, Any]) -> None:
        self._standby, self.given, self._holds = standby, given, False

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._holds:
            self._standby.holder_gone.set()

    def execute(self, query: str | bytes) -> Any:
        text = query.decode() if isinstance(query, bytes) else query
        self._holds = self._holds or "backend_start::text" in text
        rows = self._standby.answer(text)
        return SimpleNamespace(fetchall=lambda: rows, fetchone=lambda: rows[0] if rows else None)


Hold = Callable[..., Pause]


@pytest.fixture
def standby(monkeypatch: pytest.MonkeyPatch) -> Standby:
    made = Standby()
    monkeypatch.setattr(psycopg, "connect", made.connect)
    return made


def held(standby: Standby, during: Callable[[], object] = lambda: None, **limits: float) -> Pause:
    """Hold it while something happens."""
    with paused_replay(ACCESS, NODE, **limits) as pause:
        assert standby.paused
        during()
    return pause


def test_a_standby_stands_still_at_one_point_and_goes_on_afterwards(standby: Standby) -> None:
    pause = held(standby)
    assert pause == Pause("0/1A", {})
    assert not standby.paused
    assert standby.holder_gone.is_set()


def test_the_server_itself_looks_after_the_session_that_holds_the_pause(standby: Standby) -> None:
    held(standby)
    (block,) = standby.guards
    assert "pid = 4711 AND backend_start = '2026-01-01 00:00:00+00'" in block
    assert standby.said.index(block) < len(standby.said) - 1


def test_it_goes_on_after_a_backup_that_failed(standby: Standby) -> None:
    def fail() -> None:
        raise ValueError("the store is away")

    with pytest.raises(ValueError, match="store is away"):
        held(standby, fail)
    assert not standby.paused
    assert standby.holder_gone.is_set()


def test_a_moment_without_locks_is_waited_for_and_replay_goes_on_until_then(
    standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "LOCK_PAUSE_SECONDS", 0.0)
    standby.locks = [[("shop", "16384")], [("shop", "16384")]]
    assert held(standby, lock_seconds=60).locked == {}
    pauses = [text for text in standby.said if "pg_wal_replay_pause()" in text]
    resumes = [text for text in standby.said if "pg_wal_replay_resume()::text" in text]
    assert (len(pauses), len(resumes)) == (3, 3)  # the last one is the end


def test_what_stays_locked_is_named(standby: Standby) -> None:
    standby.locks = [[("shop", "16384"), ("blog", "orders")]] * 2
    assert held(standby, lock_seconds=-1).locked == {
        "shop": "relation 16384 is locked on the primary (AccessExclusiveLock)",
        "blog": "relation orders is locked on the primary (AccessExclusiveLock)",
    }


def test_a_standby_that_somebody_else_resumed_makes_the_backup_worthless(standby: Standby) -> None:
    def resume() -> None:
        standby.point = "0/2B"

    with pytest.raises(TemporaryError, match="did not stay paused at 0/1A: replay is at 0/2B"):
        held(standby, resume)


def test_a_standby_that_was_promoted_makes_the_backup_worthless(standby: Standby) -> None:
    def promote() -> None:
        standby.promoted = True

    with pytest.raises(TemporaryError, match="did not stay paused at 0/1A: it was promoted"):
        held(standby, promote)
    assert standby.holder_gone.is_set()


def test_a_standby_that_is_lost_is_told_and_hides_no_other_fault(standby: Standby) -> None:
    def lose() -> None:
        standby.lost = True

    with pytest.raises(TemporaryError, match=r"postgresql-1 was lost while its replay was paused"):
        held(standby, lose)
    assert standby.holder_gone.is_set()


def test_a_standby_that_does_not_pause_is_not_waited_for_for_ever(
    standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "PAUSE_SECONDS", 0.05)
    standby.obeys = False
    with pytest.raises(TemporaryError, match="did not pause its replay within 0 s"):
        held(standby)
    assert standby.holder_gone.is_set()


def test_a_server_that_refuses_to_pause_says_why(standby: Standby) -> None:
    answer = standby.answer

    def refuse(text: str) -> list[Any]:
        if "pg_wal_replay_pause()" in text:
            raise psycopg.errors.ObjectNotInPrerequisiteState("recovery is not in progress")
        return answer(text)

    standby.answer = refuse  # type: ignore[method-assign]
    with pytest.raises(
        TemporaryError, match="did not pause its replay: recovery is not in progress"
    ):
        held(standby)
    assert standby.holder_gone.is_set()
