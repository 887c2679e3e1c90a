"""Whoever answers a rebuild is understood or refused, counts once, and approves what will be done or nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sandbox.control_room import ControlRoom

from ..conftest import Backups
from .control import ANSWER, Run, proven, rebuild

pytestmark = pytest.mark.integration

GARBAGE: list[Any] = [
    None,
    {},
    [],
    "approve",
    {"decision": "approve"},
    {**ANSWER, "decision": "APPROVE"},
    {**ANSWER, "decision": True},
    {**ANSWER, "name": ["Ottilie", "Engineer"]},
    {**ANSWER, "ticket": 1815},
    {**ANSWER, "ticket": "x" * 1_000_000},
    {**ANSWER, "decision": "refuse", "approve": True},
    {**ANSWER, "name": "<img src=x onerror=alert(1)>"},
    {**ANSWER, "name": "[Ada](javascript:alert(1))"},
    {**ANSWER, "ticket": "CHG-1 | **approved by everybody**"},
    {**ANSWER, "name": "Ada\n\n# Approved"},
]


def test_garbage_is_refused_and_of_several_people_at_once_one_is_heard(
    room: ControlRoom, backups: Backups
) -> None:
    proven(room, backups, "nats")
    before = backups.live.pod("nats-0")["metadata"]["uid"]
    made = rebuild(room)
    made.asks()
    taken = {str(words)[:80]: said for words in GARBAGE if (said := made.say(words)) == "ACCEPT"}
    assert taken == {}
    assert made.state["type"] == "PAUSED"
    people = [f"Engineer {number}" for number in range(5)]
    with ThreadPoolExecutor(len(people)) as pool:
        answers = list(pool.map(lambda name: made.answer(decision="refuse", name=name), people))
    assert answers.count("ACCEPT") == 1, answers
    heard = people[answers.index("ACCEPT")]
    assert f"refused by {heard}" in made.reaches("CANCELLED")["message"]
    assert backups.live.pod("nats-0")["metadata"]["uid"] == before


# A rebuild whose minutes are of 50 ms: it waits for 3 s instead of the 60 min of the settings.
EXPIRES = """
from tasks import approval
real = approval.pause_flow_run
approval.pause_flow_run = lambda **words: real(**{**words, "timeout": words["timeout"] / 1200})
from flows.rebuild import rebuild_component
state = rebuild_component("sandbox", "nats", return_state=True)
print(state.type.value, state.message)
"""


def test_a_question_that_nobody_answers_expires_and_nothing_was_changed(
    room: ControlRoom, backups: Backups
) -> None:
    proven(room, backups, "nats")
    before = backups.live.pod("nats-0")["metadata"]["uid"]
    done = subprocess.run(
        [sys.executable, "-c", EXPIRES],
        env={**room.environ(), "PYTHONPATH": str(Path(__file__).parents[4])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    end = done.stdout.splitlines()[-1:]
    assert end == ["FAILED the approval has expired; nothing was changed"], (
        done.stdout + done.stderr
    )
    assert backups.live.pod("nats-0")["metadata"]["uid"] == before


def test_who_approves_what_is_no_longer_so_approves_nothing(
    room: ControlRoom, backups: Backups
) -> None:
    proven(room, backups, "nats")
    before = backups.live.pod("nats-0")["metadata"]["uid"]
    made = rebuild(room)
    made.asks()
    kube, label = backups.environment.kube, "app.kubernetes.io/version"
    service = kube.get("v1", "Service", "nats", backups.live.namespace)
    assert service is not None
    was = service["metadata"]["labels"][label]
    kube.patch(
        service, {"metadata": {"labels": {label: "0.0.1"}}}
    )  # what is declared is not what is there any more
    try:
        assert made.answer() == "ACCEPT"
        said = made.reaches("FAILED")["message"]
    finally:
        kube.patch(service, {"metadata": {"labels": {label: was}}})
    assert "approved it; nothing was changed" in said
    assert backups.live.pod("nats-0")["metadata"]["uid"] == before


@pytest.mark.soak
def test_who_takes_his_time_is_heard_all_the_same(room: ControlRoom, backups: Backups) -> None:
    """A place in Prefect's limits is asked for anew 225 s after a run's start, which a paused run would not get."""
    proven(room, backups, "nats")
    made = rebuild(room)
    made.asks()
    time.sleep(260)
    assert made.state["type"] == "PAUSED"
    assert made.answer() == "ACCEPT"
    made.reaches("COMPLETED", seconds=300)
    backups.live.await_state("ready")


def test_of_two_rebuilds_that_are_approved_one_goes_on(room: ControlRoom, backups: Backups) -> None:
    proven(room, backups, "nats")
    both = [rebuild(room), rebuild(room)]
    for made in both:
        made.asks()
    with ThreadPoolExecutor(len(both)) as pool:
        assert list(pool.map(Run.answer, both)) == ["ACCEPT"] * 2
    ends = [made.reaches("COMPLETED", "FAILED", seconds=300) for made in both]
    assert sorted(end["type"] for end in ends) == ["COMPLETED", "FAILED"], ends
    (refused,) = (end["message"] for end in ends if end["type"] == "FAILED")
    assert "is held by" in refused or "the plan has changed" in refused, refused
    backups.live.await_state("ready")
