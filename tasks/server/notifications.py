"""Sends a test message through the same path as real notifications, and reports whether it arrived.

The message is an event: the server's automation sends it to every block, and reports the result by events of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from config.models import Settings
from errors import ConfigurationError, Fault, PermanentError
from tasks.server import automations
from tasks.server.api import post

EVENT, AUTOMATION = "isa-cloud.notify.test", "isa-notify-test"
EXECUTED, FAILED = "prefect.automation.action.executed", "prefect.automation.action.failed"
# Events are written down in batches, every few seconds; a dead receiver takes 10 s of its own.
PATIENCE_SECONDS, POLL_SECONDS = 90.0, 0.5


@dataclass(frozen=True)
class Sent:
    """Result of a message.

    Attributes:
        block: through which, `TYPE/NAME`.
        arrived: whether the receiver accepted it.
        seconds: until the result was known.
        words: why not.
    """

    block: str
    arrived: bool
    seconds: float
    words: str = ""


def send_test(
    settings: Settings,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Sent]:
    """Send a message through every block of the settings, and wait for the result from the server.

    Args:
        settings: of the environment.
        clock: seconds, for tests.
        sleep: waits, for tests.

    Raises:
        ConfigurationError: the settings name no block.
        PermanentError: the server's automations differ from the declared ones.
        TemporaryError: the server does not answer.
    """
    names = settings.notify.blocks
    if not names:
        words = "is empty: nobody is notified"
        raise ConfigurationError(
            [Fault("notify.blocks", words, "name blocks of the Prefect server")]
        )
    found = list(automations.find_blocks(names))
    stale = automations.compare(names)
    late = [one.name for one in (*stale.missing, *(one for _, one in stale.changed))]
    if AUTOMATION in (*late, *stale.off):
        raise PermanentError(
            f"the server's automation {AUTOMATION} differs from its declaration: run isa setup"
        )
    began, event = clock(), _emit(settings.environment)
    sent: dict[str, Sent] = {
        name: Sent(name, False, 0.0, "the server does not have this block")
        for name in names
        if name not in found
    }
    while len(sent) < len(names) and clock() - began < PATIENCE_SECONDS:
        sleep(POLL_SECONDS)
        for answer in _answers(event):
            name = found[answer["payload"]["action_index"]]
            sent.setdefault(name, _judge(name, answer, round(clock() - began, 1)))
    silent = f"the server did not confirm it within {PATIENCE_SECONDS:.0f} s: see its log"
    return [sent.get(name, Sent(name, False, PATIENCE_SECONDS, silent)) for name in names]


# ---------------------------------------------------------------------- inside
def _emit(environment: str) -> str:
    event = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": EVENT,
        "resource": {
            "prefect.resource.id": f"isa-cloud.notify.{environment}",
            "prefect.resource.name": environment,
        },
    }
    post("/events", [event])
    return str(event["id"])


def _answers(event: str) -> list[dict[str, Any]]:
    """Return what the server did because of an event, action by action."""
    of_it = {
        "event": {"name": [EXECUTED, FAILED]},
        "related": {"id": [f"prefect.event.{event}"]},
    }
    return list(post("/events/filter", {"filter": of_it})["events"])


def _judge(name: str, answer: dict[str, Any], seconds: float) -> Sent:
    if answer["event"] == EXECUTED:
        return Sent(name, True, seconds)
    words = answer["payload"].get("notification_log") or answer["payload"]["reason"]
    return Sent(name, False, seconds, " ".join(words.split())[:300])
