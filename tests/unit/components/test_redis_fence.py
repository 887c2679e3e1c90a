"""No user may write behind a fence, and each gets back what he had, wherever a member answers."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis

from components.access import Endpoint
from components.redis import live
from components.redis.replacement.fence import close, reopen
from errors import TemporaryError

MEMBERS = [f"redis-cluster-{number}" for number in range(6)]
AWAY = MEMBERS[1]
OURS = "user isa-restore on #44 ~* &* +@all"
OPEN = "user app on #11 ~app:* resetchannels +@all -@dangerous (~sel:* resetchannels -@all +@write)"
FENCED = (
    "user app on #11 ~app:* resetchannels +@all -@dangerous -@write "
    "(~sel:* resetchannels -@all -@write)"
)
KEPT = OPEN.replace("app on #11 ~app:*", "isa-fenced:app off")
READER = "user reader on #22 ~* resetchannels +@all -@write"


class Member:
    """Answers with the users that it has, and keeps what else it is told."""

    def __init__(self, *users: str) -> None:
        self.users, self.said = users, list[tuple[str, ...]]()

    def execute_command(self, *words: str) -> Any:
        if words == ("ACL LIST",):
            return list(self.users)
        self.said.append(words)
        return 1


def said(what: Any, *users: str) -> list[tuple[str, ...]]:
    member = Member(*users)
    what(member)
    return member.said


def test_what_a_user_may_do_is_kept_before_it_is_taken() -> None:
    kept, taken = said(close, OPEN, READER, OURS)
    selector = "(~sel:* resetchannels -@all +@write"
    assert kept == (
        *("ACL SETUSER", "isa-fenced:app", "reset", "nocommands"),
        *("+@all", "-@dangerous", "clearselectors", f"{selector})"),
    )
    assert taken == ("ACL SETUSER", "app", "-@write", "clearselectors", f"{selector} -@write)")
    assert not any("#" in word for word in (*kept, *taken))  # passwords stay where they are


def test_what_a_killed_run_has_left_is_kept_and_given_back() -> None:
    assert said(close, FENCED, KEPT) == []
    given, gone, _ = said(reopen, FENCED, KEPT)
    assert given[:5] == ("ACL SETUSER", "app", "nocommands", "+@all", "-@dangerous")
    assert given[-1] == "(~sel:* resetchannels -@all +@write)"
    assert gone == ("ACL DELUSER", "isa-fenced:app")


def test_who_was_let_in_by_hand_since_is_kept_as_he_is_now() -> None:
    assert [words[1] for words in said(close, OPEN, KEPT)] == ["isa-fenced:app", "app"]


def test_who_was_deleted_meanwhile_does_not_come_back() -> None:
    assert [words[:2] for words in said(reopen, READER, KEPT)] == [
        ("ACL DELUSER", "isa-fenced:app"),
        ("ACL DELUSER", "isa-restore"),
    ]


def test_writers_are_let_in_wherever_a_member_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {name: Member(FENCED, KEPT) for name in MEMBERS}
    away: set[str] = set()

    @contextmanager
    def connect(access: object, member: Endpoint) -> Any:
        if member.member in away:
            raise redis.ConnectionError("connection refused")
        yield asked[member.member]

    members = [SimpleNamespace(member=name, host="127.0.0.1") for name in MEMBERS]
    monkeypatch.setattr(live, "_members", lambda access: members)
    monkeypatch.setattr(live, "connect", connect)
    with pytest.raises(TemporaryError, match=AWAY), live.fence(cast(Any, None), ["all keys"]):
        away.add(AWAY)
    opened = {name for name, one in asked.items() if "app" in [words[1] for words in one.said]}
    assert opened == set(MEMBERS) - {AWAY}
