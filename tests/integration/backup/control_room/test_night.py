"""The nightly schedule itself: the server makes the run, a worker takes it, and a night has one set."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox.control_room import ControlRoom

from ..conftest import Backups, until
from .control import Run, find_deployment

pytestmark = pytest.mark.integration

NAME = "backup-nightly"


@contextmanager
def two_nights(room: ControlRoom, only: str) -> Iterator[None]:
    """Two nights come in two minutes, and back up one component."""
    found = find_deployment(room, NAME)
    where = f"/deployments/{found['id']}"
    parameters = {**found["parameters"], "only": [only]}
    room.http.patch(where, json={"parameters": parameters}).raise_for_status()
    first = datetime.now(UTC) + timedelta(seconds=75)
    minutes = f"{first.minute},{(first.minute + 1) % 60}"
    schedule = {"cron": f"{minutes} * * * *", "timezone": "UTC"}
    body = [{"schedule": schedule, "active": True}]
    (made,) = room.http.post(f"{where}/schedules", json=body).raise_for_status().json()
    try:
        yield
    finally:
        room.http.delete(f"{where}/schedules/{made['id']}").raise_for_status()
        room.http.patch(where, json={"parameters": found["parameters"]}).raise_for_status()


def scheduled(room: ControlRoom, state: str) -> list[Run]:
    """Runs that the schedule has made and that are in a state of this name, the oldest first."""
    body = {
        "flow_runs": {"tags": {"all_": ["auto-scheduled"]}, "state": {"name": {"any_": [state]}}},
        "deployments": {"name": {"any_": [NAME]}},
        "sort": "EXPECTED_START_TIME_ASC",
    }
    found: list[dict[str, Any]] = room.http.post("/flow_runs/filter", json=body).json()
    return [Run(room, one["id"]) for one in found if "slot" not in one["parameters"]]


def outcome(room: ControlRoom, run: Run) -> str:
    body = {"artifacts": {"flow_run_id": {"any_": [run.id]}, "type": {"any_": ["table"]}}}
    (found,) = room.http.post("/artifacts/filter", json=body).json()
    (row,) = json.loads(found["data"])
    return str(row["outcome"])


def test_a_schedule_that_fires_again_while_its_run_is_under_way_makes_no_second_set(
    room: ControlRoom, backups: Backups
) -> None:
    before = {one.id for one in backups.environment.catalogue(["redis"]).sets}
    with two_nights(room, "redis"):
        until(lambda: bool(scheduled(room, "Running")), "the schedule's run is under way", 150)
        first = scheduled(room, "Running")[0]
        stopped = first.processes()
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            waiting = "AwaitingConcurrencySlot"
            until(lambda: bool(scheduled(room, waiting)), "the next one waits for it", 150)
            second = scheduled(room, waiting)[0]
        finally:
            for pid in stopped:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        first.reaches("COMPLETED")
        second.reaches("COMPLETED")
    assert (outcome(room, first), outcome(room, second)) == ("complete", "exists")
    (made,) = (one for one in backups.environment.catalogue(["redis"]).sets if one.id not in before)
    assert len(made.slot) == len("2026-11-25")  # the site's day


def late_run(room: ControlRoom, name: str, days: int, **parameters: Any) -> Run:
    """A run as a schedule made it some days ago, which no worker has taken yet."""
    found = find_deployment(room, name)
    planned = datetime.now(UTC) - timedelta(days=days, minutes=5)
    body = {
        "parameters": {**found["parameters"], **parameters},
        "tags": ["auto-scheduled"],
        "state": {
            "type": "SCHEDULED",
            "state_details": {"scheduled_time": planned.isoformat()},
        },
    }
    made = room.http.post(f"/deployments/{found['id']}/create_flow_run", json=body)
    return Run(room, made.raise_for_status().json()["id"])


def test_after_three_nights_without_a_worker_one_set_is_made_and_its_night_is_the_last(
    room: ControlRoom, backups: Backups
) -> None:
    before = {one.id for one in backups.environment.catalogue(["nats"]).sets}
    late = [late_run(room, NAME, days, only=["nats"]) for days in (3, 2, 1)]
    proofs = [
        late_run(room, "verify-restores", days, which="due", only=["emqx"]) for days in (2, 1)
    ]
    for run in (*late, *proofs):
        run.reaches("COMPLETED")
    *over, newest = (str(run.state["message"]) for run in late)
    assert all("nothing was done: this run was scheduled for" in words for words in over), over
    assert "nothing was done" not in newest
    assert "nothing was done" in proofs[0].state["message"]
    assert "nothing was done" not in proofs[1].state["message"]
    (made,) = (one for one in backups.environment.catalogue(["nats"]).sets if one.id not in before)
    assert made.slot == str((datetime.now(UTC) - timedelta(days=1, minutes=5)).date())
