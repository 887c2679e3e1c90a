"""The flows that the control room's bench runs: cheap ones, whose true end is known beforehand."""

from __future__ import annotations

import time
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from tasks.approval import ask
from tasks.cancellation import cancellable
from tasks.logs import logged
from tasks.redacted_errors import redacted_errors

TASKS = 3
MEETING_SECONDS = 600.0


@task(task_run_name="step-{number}", cache_policy=NO_CACHE, persist_result=False)
def step(number: int) -> int:
    return number


@flow(name="bench-meeting", flow_run_name="meeting-{number}", persist_result=False)
def meeting(number: int, fails: bool, of: int, directory: str) -> None:
    """Go on once all runs are under way at the same time, do some tasks, and end as told."""
    with cancellable(), redacted_errors(), logged():
        here, deadline = Path(directory), time.monotonic() + MEETING_SECONDS
        (here / f"{number}").touch()
        while len(list(here.iterdir())) < of:
            assert time.monotonic() < deadline, "the others never came"
            time.sleep(0.2)
        for one in range(TASKS):
            step(one)
        assert not fails, "as told"


@flow(name="bench-approval", persist_result=False)
def approval() -> None:
    """Wait for an answer as a rebuild does."""
    with cancellable(), redacted_errors(), logged():
        answer = ask("the bench asks", minutes=10)
        assert answer is not None, "nobody answered"
