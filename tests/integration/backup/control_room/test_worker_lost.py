"""A worker that is lost alone takes no run with it; what a machine takes along the same calls put right."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from sandbox.control_room import ControlRoom
from tests.losses import LOSSES

from ..conftest import Backups, until
from .control import Run, go_on, proven, start
from .moments import fenced, paused, replica_waits
from .test_cancelled import scratch_pods

pytestmark = pytest.mark.integration


def worker(room: ControlRoom) -> int:
    pid = room.daemon("prefect-worker").pid
    assert pid is not None
    return pid


def kill_with_its_runs(room: ControlRoom, *runs: Run) -> None:
    """As a machine that is lost."""
    own = [one for run in runs for one, program in run.processes().items() if "python" in program]
    for one in (worker(room), *own):  # their children are the kernel's to end
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def terminate(room: ControlRoom, *_: Run) -> None:
    """As a machine that is shut down: the worker ends its runs itself, hard."""
    os.kill(worker(room), signal.SIGTERM)


def test_a_run_goes_on_to_its_end_when_its_worker_alone_is_killed(
    room: ControlRoom, backups: Backups
) -> None:
    with replica_waits(backups) as waits:
        run = start(room, "backup-component", only=["redis"])
        until(waits, "it is in the midst of it", 180)
        os.kill(worker(room), signal.SIGKILL)
        until(lambda: room.daemon("prefect-worker").pid is None, "the worker is gone", 30)
    try:
        run.reaches("COMPLETED")
    finally:
        room.up()


# fifteen minutes of each are waiting for heartbeats that do not come
@pytest.mark.soak
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("lose", [kill_with_its_runs, terminate])
def test_runs_that_are_lost_with_their_worker_end_as_crashed_and_can_be_called_again(
    lose: Callable[..., None], room: ControlRoom, backups: Backups
) -> None:
    good = proven(room, backups, "redis")
    night: dict[str, Any] = {"only": ["postgresql"]}
    restore: dict[str, Any] = {"backup": good, "confirm": "redis"}
    sets = backups.environment.catalogue(["postgresql", "redis"]).sets
    with replica_waits(backups) as waits:
        lost = [
            start(room, "backup-component", **night),
            start(room, "restore-component", **restore),
        ]
        dumping = lost[0].stops("pg_dump")
        until(waits, "both are in the midst of it", 180)
        assert paused(backups) and fenced(backups) and scratch_pods(backups)
        lose(room, *lost)
        go_on(dumping)
        until(lambda: not any(run.processes() for run in lost), "what they started has ended", 30)
        room.up()
        until(lambda: not paused(backups), "the standby replays again by itself", 30)
    assert backups.environment.catalogue(["postgresql", "redis"]).sets == sets
    again = start(room, "backup-component", **night)  # waits for the place of the lost one
    for run in lost:
        assert "heartbeat" in run.reaches("CRASHED", seconds=1200)["message"]
    restored = start(room, "restore-component", **restore)  # refused, had it no place
    again.reaches("COMPLETED", seconds=300)
    restored.reaches("COMPLETED", seconds=300)
    assert not fenced(backups)
    assert scratch_pods(backups) == []
    with backups.access() as access:
        LOSSES["redis"][1](access)()
