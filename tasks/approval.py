"""Waits for a person: the run is paused, the UI shows a form, and the API accepts the same answer."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import Annotated, Literal
from uuid import UUID

import httpx
from prefect import runtime
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Running
from pydantic import Field

from cluster.command import CANCELLATION
from errors import IsaError, TemporaryError
from tasks.server.api import connect

POLL_SECONDS = 2  # how soon an answer is heard
# Prefect knows the pause by it: once it was answered, the same pause gives that answer at once.
KEY = "approval"


# Nothing that the UI, which shows it as Markdown, would take for markup, a link or a script, and no control characters.
Plain = Annotated[
    str,
    Field(
        min_length=2,
        max_length=100,
        pattern=r"^[^<>\[\]`*|\\\x00-\x1f\x7f-\x9f\u2028\u2029]+$",
    ),
]


class Approval(RunInput):
    """The answer of a person. The name is only a claim: the server knows no users."""

    decision: Literal["approve", "refuse"] = Field(description="refusing changes nothing")
    name: Plain = Field(description="your name")
    ticket: Plain = Field(description="change ticket, or a reason")


def ask(plan: str, minutes: float) -> Approval | None:
    """Pause the run until someone answers.

    Args:
        plan: Markdown, shown above the form.
        minutes: after which the question expires.

    A server outage does not end the question: Prefect's own wait raises in that case, after its client has repeated its
    request for long enough.

    Returns:
        The answer; None if there was none in time.
    """
    form = Approval.with_initial_data(description=plan)
    deadline = time.monotonic() + minutes * 60
    while (left := deadline - time.monotonic()) > 0:
        try:
            return pause_flow_run(
                wait_for_input=form, timeout=math.ceil(left), poll_interval=POLL_SECONDS, key=KEY
            )
        except FlowPauseTimeout:
            break
        except httpx.HTTPError:
            _await_end_of_pause(deadline)
    with suppress(IsaError):  # then it ends in the server's words
        _wake()
    return None


def _await_end_of_pause(deadline: float) -> None:
    """Wait until the server answers again and the run is no longer paused, or until the question has expired."""
    run = UUID(runtime.flow_run.id)
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        while time.monotonic() < deadline:
            CANCELLATION.sleep(POLL_SECONDS)
            with suppress(TemporaryError), connect() as client:
                state = client.read_flow_run(run).state
                if state is None or not state.is_paused():
                    return


def _wake() -> None:
    """Take the run out of an expired pause, so that it can set its own final state.

    The server ends such a pause only as failed, with its own message: `The flow was failed and never resumed`
    (HandleResumingPausedFlows in Prefect's core_policy.py).
    """
    with connect() as client:
        client.set_flow_run_state(UUID(runtime.flow_run.id), Running(), force=True)
