"""Waits until a component may be used, and says what is wrong while it may not."""

from __future__ import annotations

import time
from collections.abc import Callable

from cluster.command import CANCELLATION
from components import COMPONENTS
from components.base import Check, worst
from components.pods import check_workloads
from errors import PermanentError, TemporaryError
from operations.platform import Platform

# The API answers a round in about 20 ms; twice a second is quick for people and idle for two cores.
POLL_SECONDS = 0.5


def check(platform: Platform, component: str) -> list[Check]:
    """Ask everything about a component once."""
    settings = platform.settings
    workloads = COMPONENTS[component].workloads(settings)
    return check_workloads(platform.kube, settings.kubernetes.namespace, workloads)


def wait(
    platform: Platform,
    component: str,
    *,
    tell: Callable[[str], None] = lambda note: None,
    sleep: Callable[[float], None] = CANCELLATION.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[Check]:
    """Wait until all critical checks are good.

    Args:
        platform: the environment.
        component: which one.
        tell: gets the first trouble whenever it changes.

    Returns:
        The checks of the last round.

    Raises:
        PermanentError: the time of `deploy.gate_timeout_seconds` is over; it names what is still wrong.
        Cancelled: the run was cancelled.
    """
    limit = platform.settings.deploy.gate_timeout_seconds
    deadline = clock() + limit
    told = ""
    while True:
        try:
            checks = check(platform, component)
            trouble = worst(checks)
            words = f"{trouble.name}: {trouble.hint}" if trouble else ""
        except TemporaryError as exc:  # the API server is away; the engines may be fine
            trouble, words = Check("API server", False), str(exc)
        if trouble is None:
            return checks
        if words != told:
            tell(words)
            told = words
        if clock() > deadline:
            raise PermanentError(f"{component} is not ready after {limit:.0f} s: {words}")
        sleep(POLL_SECONDS)
