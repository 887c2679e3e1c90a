"""Waits for a person: the run is paused, the UI shows a form, the API takes the same answer."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Literal
from uuid import UUID

from prefect import runtime
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.states import Running
from pydantic import Field

from errors import IsaError
from tasks.server import connect

POLL_SECONDS = 2  # how soon an answer is heard


# Nothing that the UI, which shows it as Markdown, would take for markup, a link or a script.
Plain = Annotated[str, Field(min_length=2, max_length=100, pattern=r"^[^<>\[\]`*|\\\r\n]+$")]


class Approval(RunInput):
    """What a person answers. Who it was is what they say of themselves: the server knows no names."""

    decision: Literal["approve", "refuse"] = Field(description="refuse changes nothing")
    name: Plain = Field(description="your name")
    ticket: Plain = Field(description="change ticket, or a reason")


def ask(plan: str, minutes: int) -> Approval | None:
    """Pause the run until somebody answers.

    Args:
        plan: Markdown, shown above the form.
        minutes: after which the question has expired.

    Returns:
        The answer; None if there was none in time.
    """
    form = Approval.with_initial_data(description=plan)
    try:
        return pause_flow_run(wait_for_input=form, timeout=minutes * 60, poll_interval=POLL_SECONDS)
    except FlowPauseTimeout:
        with suppress(IsaError):  # then it ends in the server's words
            _wake()
        return None


def _wake() -> None:
    """Take the run out of a pause whose time is over, so that it may say itself how it ends.

    The server lets it out of there only as failed, with a message of its own: `The flow was failed and never resumed`
    (HandleResumingPausedFlows in Prefect's core_policy.py).
    """
    with connect() as client:
        client.set_flow_run_state(UUID(runtime.flow_run.id), Running(), force=True)
