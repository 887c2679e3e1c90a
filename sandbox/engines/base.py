"""How the agent runs an engine: its start, the forming of its cluster, and its exec probe."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sandbox.agent.pod import Pod


@dataclass(frozen=True)
class Launch:
    """One process.

    Attributes:
        argv: program and arguments, without secrets: every user of the machine can read them.
        environ: variables in addition to the agent's environment.
    """

    argv: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)


def nothing(pod: Pod) -> None:
    """Do nothing: the engine finds its peers by its configuration."""


def always(pod: Pod) -> str:
    """Answer an exec probe with success."""
    return ""


@dataclass(frozen=True)
class Engine:
    """An engine behind a container.

    Attributes:
        container: name of the container in the charts.
        real: the engine itself runs, not a double.
        prepare: writes its configuration, creates its data directory if needed, and returns how to start it. Called
            before every start.
        form: does the work of the chart's scripts on a running server. Called until the server is ready.
        probe: answers the container's exec probe: "" or the problem.
        stop: signal that stops it cleanly.
        grace: seconds that it may take to stop.
    """

    container: str
    real: bool
    prepare: Callable[[Pod], Launch]
    form: Callable[[Pod], None] = nothing
    probe: Callable[[Pod], str] = always
    stop: signal.Signals = signal.SIGTERM
    grace: float = 10.0
