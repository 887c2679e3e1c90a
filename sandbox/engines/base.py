"""What the agent knows of an engine: how to start it, how its cluster forms, what its exec probe would answer."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sandbox.agent.pod import Pod


@dataclass(frozen=True)
class Launch:
    """One process.

    Attributes:
        argv: program and arguments, without secrets: everybody on the machine can read them.
        environ: added to the agent's own environment.
    """

    argv: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)


def nothing(pod: Pod) -> None:
    """Form no cluster: the engine finds its peers by its configuration."""


def always(pod: Pod) -> str:
    """Answer an exec probe of which nothing is known."""
    return ""


@dataclass(frozen=True)
class Engine:
    """An engine behind a container.

    Attributes:
        container: name of the container, as the charts have it.
        real: whether the engine itself runs, or a double of it.
        prepare: writes its configuration, makes its data directory if there is none, returns how to start it;
            called before every start.
        form: what the chart's scripts do beside a running server until it is ready; called again until then.
        probe: answers the container's exec probe: "" or what is wrong.
        stop: signal that ends it in order.
        grace: seconds that it may take to end.
    """

    container: str
    real: bool
    prepare: Callable[[Pod], Launch]
    form: Callable[[Pod], None] = nothing
    probe: Callable[[Pod], str] = always
    stop: signal.Signals = signal.SIGTERM
    grace: float = 10.0
