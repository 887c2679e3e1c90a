"""A machine that is lost with a worker and its runs leaves nothing that the same calls do not put right."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Any

import pytest

from deployments.sandbox.control_room import ControlRoom
from tests.losses import LOSSES

from ..conftest import Backups, until
from .control import Run, proven, start
from .moments import fenced, paused, replica_waits, table_locked
from .test_cancelled import scratch_pods

# three minutes of it are waiting for heartbeats that do not come
pytestmark = [pytest.mark.integration, pytest.mark.soak]


def lose_the_worker(room: ControlRoom, *runs: Run) -> None:
    """Kill a worker with all that it has started, and start another one."""
    pid = room.daemon("prefect-worker").pid
    assert pid is not None
    own = [one for run in runs for one, program in run.processes().items() if "python" in program]
    for one in (pid, *own):  # their children are the kernel's to end
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    until(lambda: not any(run.processes() for run in runs), "what they started has ended", 30)
    room.up()


def test_runs_that_are_lost_with_their_worker_end_as_crashed_and_can_be_called_again(
    room: ControlRoom, backups: Backups
) -> None:
    good = proven(room, backups, "redis")
    night: dict[str, Any] = {"only": ["postgresql"]}
    restore: dict[str, Any] = {"backup": good, "confirm": "redis"}
    sets = backups.vault.catalogue(["postgresql", "redis"]).sets
    with table_locked(backups) as locked, replica_waits(backups) as waits:
        lost = [
            start(room, "backup-component", **night),
            start(room, "restore-component", **restore),
        ]
        until(lambda: waits() and locked(), "both are in the midst of it", 180)
        assert paused(backups) and fenced(backups) and scratch_pods(backups)
        lose_the_worker(room, *lost)
        until(lambda: not paused(backups), "the standby replays again by itself", 30)
    assert backups.vault.catalogue(["postgresql", "redis"]).sets == sets
    again = start(room, "backup-component", **night)  # waits for the place of the lost one
    for run in lost:
        assert "heartbeat" in run.reaches("CRASHED", seconds=300)["message"]
    restored = start(room, "restore-component", **restore)  # refused, had it no place
    again.reaches("COMPLETED", seconds=300)
    restored.reaches("COMPLETED", seconds=300)
    assert not fenced(backups)
    assert scratch_pods(backups) == []
    with backups.access() as access:
        LOSSES["redis"][1](access)()
