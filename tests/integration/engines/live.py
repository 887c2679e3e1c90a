"""Hands for fault tests: kill a member and keep it down, ask a component, wait with a limit."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cluster.kube import Manifest
from components import COMPONENTS
from operations.environment.environment import Environment
from operations.health import gate
from operations.health.gate import Finding
from sandbox.agent.pod import HOLD
from sandbox.cluster import Sandbox
from sandbox.machine import processes

# Generous: two cores are shared with other work. What is fast is measured by the bench.
PATIENCE_SECONDS = 90.0


@dataclass
class Live:
    """A deployed platform and its processes.

    Attributes:
        sandbox: below it.
        environment: as the product sees it.
        components: what the tests of now are about; all if empty.
    """

    sandbox: Sandbox
    environment: Environment
    held: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)

    @property
    def namespace(self) -> str:
        return self.environment.settings.kubernetes.namespace

    def pod(self, name: str) -> Manifest:
        live = self.environment.kube.get("v1", "Pod", name, self.namespace)
        assert live is not None, f"there is no pod {name}"
        return live

    def address(self, name: str) -> str:
        return str(self.pod(name)["status"]["podIP"])

    def pids(self, name: str) -> list[int]:
        """Processes behind a pod."""
        uid = self.pod(name)["metadata"]["uid"]
        home: Path = self.sandbox.engines / "pods" / f"{self.namespace}_{name}_{uid[:8]}"
        return processes.running_below(home)

    def kill(self, *names: str) -> None:
        """Kill members with all their processes, and keep them down."""
        for name in names:
            self.annotate(name, "true")
            self.held.add(name)
        for name in names:
            for pid in self.pids(name):
                os.kill(pid, signal.SIGKILL)

    def heal(self) -> None:
        """Let everything that was killed start again."""
        for name in self.held:
            self.annotate(name, None)
        self.held.clear()

    def annotate(self, name: str, value: str | None) -> None:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": self.namespace},
        }
        self.environment.kube.patch(pod, {"metadata": {"annotations": {HOLD: value}}})

    def ask(self, component: str) -> Finding:
        self.touched.add(component)
        return gate.check(self.environment, component)

    def await_state(self, state: str) -> None:
        """Wait until all components that were touched are so (all of them at the first call)."""
        for component in sorted(self.touched) or COMPONENTS:
            self.until(component, lambda found: found.state == state, f"{state}")
        self.touched.clear()

    def until(
        self,
        component: str,
        holds: Callable[[Finding], bool],
        what: str,
        seconds: float = PATIENCE_SECONDS,
    ) -> tuple[Finding, float]:
        """Ask again and again; returns the finding and the seconds that it took."""
        started = time.monotonic()
        while True:
            found = self.ask(component)
            took = time.monotonic() - started
            if holds(found):
                return found, took
            assert took < seconds, (
                f"{component} is not {what} after {seconds:.0f} s: {troubles(found)}"
            )
            time.sleep(0.2)


def troubles(found: Finding) -> dict[str, str]:
    """What is not ok, by check."""
    return {check.name: check.hint for check in found.checks if not check.ok}


def says(check: str, *parts: str, state: str = "") -> Callable[[Finding], bool]:
    """Whether a check failed with a hint that holds all the parts, in a state if one is wanted.

    Right after a death some other check may fail for a moment too: what a test says of the state belongs in here.
    """

    def holds(found: Finding) -> bool:
        hint = troubles(found).get(check)
        wanted = not state or found.state == state
        return wanted and hint is not None and all(part in hint for part in parts)

    return holds


def both(*conditions: Callable[[Finding], bool]) -> Callable[[Finding], bool]:
    """Whether all hold of the same finding."""
    return lambda found: all(condition(found) for condition in conditions)
