"""The nightly schedule itself: the server makes the run, a worker takes it, and a night has one set."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from deployments.sandbox.control_room import ControlRoom

from ..conftest import Backups, until
from .control import Run, find_deployment

pytestmark = pytest.mark.integration

NAME = "backup-nightly"


@contextmanager
def every_minute(room: ControlRoom, only: str) -> Iterator[None]:
    """The night comes every minute, and backs up one component."""
    found = find_deployment(room, NAME)
    where = f"/deployments/{found['id']}"
    parameters = {**found["parameters"], "only": [only]}
    room.http.patch(where, json={"parameters": parameters}).raise_for_status()
    minutely = [{"schedule": {"cron": "* * * * *", "timezone": "UTC"}, "active": True}]
    (made,) = room.http.post(f"{where}/schedules", json=minutely).raise_for_status().json()
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
    before = {one.id for one in backups.vault.catalogue(["redis"]).sets}
    with every_minute(room, "redis"):
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
    (made,) = (one for one in backups.vault.catalogue(["redis"]).sets if one.id not in before)
    assert len(made.slot) == len("2026-11-25")  # the site's day
