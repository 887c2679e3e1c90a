from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prefect.exceptions import FlowPauseTimeout
from prefect.states import Paused, Running
from pydantic import ValidationError

from errors import TemporaryError
from tasks import approval
from tasks.approval import Approval, ask

ANSWER = {"decision": "approve", "name": "Ottilie Engineer", "ticket": "CHG-1815"}


@pytest.mark.parametrize(
    "name", ["Ottilie O'Neil-Müller (DBA)", "李 小龍", "ada@example.com", "A. L."]
)
def test_people_have_the_names_they_have(name: str) -> None:
    assert Approval.model_validate({**ANSWER, "name": name}).name == name


@pytest.mark.parametrize(
    "words",
    [
        {"name": "Ada\x1b[2J"},
        {"ticket": "T-1\x9b"},
        {"name": "Ada\n"},
        {"name": "<b>Ada</b>"},
        {"name": "[Ada](https://example.com)"},
        {"name": "Ada\n# Approved"},
        {"ticket": "CHG-1 | **urgent**"},
        {"ticket": "`CHG-1`"},
        {"ticket": "x"},
        {"ticket": "x" * 101},
        {"decision": "perhaps"},
        {"more": "words"},
    ],
)
def test_an_answer_is_one_in_every_field_and_holds_no_markup(words: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Approval.model_validate({**ANSWER, **words})


class Server:
    """What Prefect's wait and the run's state are, one after the other; an exception is raised."""

    def __init__(self, waits: list[Any], states: list[Any]) -> None:
        self.waits, self.states = waits, states
        self.keys: list[str] = []
        self.forced: list[Any] = []

    def pause(self, **words: Any) -> Approval:
        self.keys.append(words["key"])
        return _next(self.waits)  # type: ignore[no-any-return]

    def read_flow_run(self, _: object) -> Any:
        return SimpleNamespace(state=_next(self.states))

    def set_flow_run_state(self, _: object, state: Any, force: bool) -> None:
        self.forced.append(state)


def _next(things: list[Any]) -> Any:
    thing = things.pop(0)
    if isinstance(thing, Exception):
        raise thing
    return thing


AWAY = TemporaryError("the server is away")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def of(waits: list[Any], states: list[Any]) -> Server:
        server = Server(waits, states)

        @contextmanager
        def connect() -> Iterator[Server]:
            yield server

        run = SimpleNamespace(id="9d0f0c3e-0000-4000-8000-000000000001")
        monkeypatch.setattr(approval, "runtime", SimpleNamespace(flow_run=run))
        monkeypatch.setattr(approval, "pause_flow_run", server.pause)
        monkeypatch.setattr(approval, "connect", connect)
        monkeypatch.setattr(approval, "POLL_SECONDS", 0)
        return server

    yield of


def test_a_question_outlives_a_server_that_is_away(asked: Any) -> None:
    said = Approval(decision="approve", name="Ottilie Engineer", ticket="CHG-1815")
    server = asked(
        [httpx.ConnectError("refused"), said], [AWAY, AWAY, Paused(), AWAY, Paused(), Running()]
    )
    assert ask("the plan", 60) == said
    assert server.keys == ["approval", "approval"]  # the same pause: it gives the answer
    assert server.states == []


def test_a_server_that_went_away_before_it_heard_the_question_is_asked_again(asked: Any) -> None:
    said = Approval(decision="refuse", name="Ottilie Engineer", ticket="CHG-1815")
    asked([httpx.ReadError("reset"), said], [Running()])
    assert ask("the plan", 60) == said


def test_a_question_that_nobody_answers_expires(asked: Any) -> None:
    server = asked([FlowPauseTimeout("never resumed")], [])
    assert ask("the plan", 60) is None
    assert [state.type.value for state in server.forced] == ["RUNNING"]


def test_a_question_expires_while_the_server_is_away_too(asked: Any) -> None:
    asked([httpx.ConnectError("refused")], [AWAY] * 1_000_000)
    assert ask("the plan", 1 / 600) is None  # a tenth of a second
