"""How a gate waits: by policy, for a stable time, and never longer than its limit."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from components.base import Check
from components.questions import Round
from config.models import DeploySettings
from errors import PermanentError, TemporaryError
from operations.environment.environment import Environment
from operations.health import gate
from operations.health.gate import Finding
from operations.runner.context import RunContext
from tests.environments import environment_with

from ..stored import Stored, settings_of

WELL = Finding((Check("one primary", True),))
DEGRADED = Finding(
    (
        Check("one primary", True),
        Check("standbys stream", False, "b: not streaming", critical=False),
    )
)
DOWN = Finding(
    (
        Check("standbys stream", False, "b", critical=False),
        Check("one primary", False, "no node accepts writes"),
    )
)


@dataclass
class Scene:
    """A clock that only sleeping moves, and rounds that are told in advance; the last one lasts."""

    rounds: Sequence[Finding | Exception]
    told: list[str] = field(default_factory=list)
    now: float = 0.0
    asked: int = 0

    def wait(self, **settings: Any) -> Finding:
        deploy = DeploySettings(
            **{"gate_timeout_seconds": 60, "gate_stable_seconds": 3, **settings}
        )
        platform = cast(Environment, SimpleNamespace(settings=SimpleNamespace(deploy=deploy)))
        return gate.wait(
            platform,
            RunContext(
                "test",
                tell=self.told.append,
                clock=lambda: self.now,
                cancellation=cast(Any, SimpleNamespace(sleep=self._sleep)),
            ),
            "postgresql",
            ask=self._ask,
        )

    def _ask(self, _: Environment, __: str) -> Finding:
        found = self.rounds[min(self.asked, len(self.rounds) - 1)]
        self.asked += 1
        if isinstance(found, Exception):
            raise found
        return found

    def _sleep(self, seconds: float) -> None:
        self.now += seconds


def test_opens_only_after_all_was_well_for_the_stable_time() -> None:
    scene = Scene([WELL])
    assert scene.wait() == WELL
    assert 3 <= scene.now < 4


def test_begins_to_count_anew_when_trouble_comes_back() -> None:
    scene = Scene([WELL, WELL, DOWN, WELL])
    scene.wait()
    assert scene.now >= 1.5 + 3


def test_waits_for_a_missing_standby_if_the_whole_is_wanted() -> None:
    scene = Scene([DEGRADED, DEGRADED, WELL])
    assert scene.wait(gate="whole") == WELL


def test_opens_without_the_standby_if_a_quorum_is_enough() -> None:
    scene = Scene([DEGRADED])
    assert scene.wait(gate="quorum") == DEGRADED


def test_does_not_open_without_a_primary_under_any_policy() -> None:
    for policy in ("whole", "quorum"):
        with pytest.raises(PermanentError, match="one primary: no node accepts writes"):
            Scene([DOWN]).wait(gate=policy)


def test_gives_up_at_its_limit_and_names_what_is_wrong() -> None:
    scene = Scene([DEGRADED])
    with pytest.raises(
        PermanentError, match=r"not ready after 60 s: standbys stream: b: not streaming"
    ):
        scene.wait()
    assert 60 < scene.now < 62


def test_takes_no_outage_of_the_api_server_for_an_engine_s_failure() -> None:
    scene = Scene([WELL, TemporaryError("the API server did not answer"), WELL])
    assert scene.wait() == WELL
    assert any("API server" in note for note in scene.told)


def test_tells_each_trouble_once() -> None:
    scene = Scene([DOWN] * 5 + [WELL])
    scene.wait()
    assert [note for note in scene.told if "one primary" in note] == [
        "one primary: no node accepts writes"
    ]


def test_tells_the_state_by_the_worst_check() -> None:
    assert [finding.state for finding in (WELL, DEGRADED, DOWN)] == ["ready", "degraded", "down"]


def test_an_engine_that_never_answers_is_down_after_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released, asked = threading.Event(), list[None]()

    def ask(_: object) -> None:
        asked.append(None)
        released.wait()

    hanging = SimpleNamespace(ask=ask, workloads=lambda _: ())
    monkeypatch.setattr(gate, "_hanging", {})
    settings = settings_of()
    settings.deploy.gate = "whole"
    platform = environment_with(
        settings, kube=Stored(), components={"postgresql": hanging}, access=nullcontext
    )
    try:
        found = gate.check(platform, "postgresql", limit=0.05)
        rounds = [gate.check(platform, "postgresql", limit=0.05) for _ in range(5)]
    finally:
        released.set()
    assert found.state == gate.DOWN
    assert "a member hangs" in found.checks[-1].hint
    assert len(asked) == gate.HANGING_ROUNDS
    assert "3 earlier rounds still wait" in rounds[-1].checks[-1].hint


def test_a_command_ends_though_an_engine_still_hangs() -> None:
    program = "from components.questions import begin; import time; begin(lambda: time.sleep(600))"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_what_cannot_be_asked_is_neither_good_nor_bad() -> None:
    questions = Round()
    with questions.check("a message travels") as answer:
        answer.unknown("the broker refuses the topic: acl.no_match is deny")
    (found,) = questions.checks
    assert found.verdict() == "unknown"
    assert Finding((found,)).state == gate.READY
