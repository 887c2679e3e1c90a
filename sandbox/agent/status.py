"""A pod's status as a kubelet would write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sandbox.agent.pod import Pod

WAITING = "waiting for the readiness probe"


def now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class ContainerState:
    """One container.

    Attributes:
        name: name of the container.
        running_since: start of its process; "" if it does not run.
        ready: result of its probe.
        restarts: starts after the first one.
        waiting: reason and message while it does not run.
        last: how its last process ended.
        ended: how its process ended, if it is not started again.
    """

    name: str
    running_since: str = ""
    ready: bool = False
    restarts: int = 0
    waiting: tuple[str, str] = ("ContainerCreating", "")
    last: dict[str, Any] = field(default_factory=dict)
    ended: dict[str, Any] = field(default_factory=dict)

    def as_status(self, image: str) -> dict[str, Any]:
        """The entry of `containerStatuses`."""
        state: dict[str, Any]
        if self.ended:
            state = {"terminated": self.ended}
        elif self.running_since:
            state = {"running": {"startedAt": self.running_since}}
        else:
            reason, message = self.waiting
            state = {"waiting": {"reason": reason, "message": message}}
        return {
            "name": self.name,
            "image": image,
            "imageID": "",
            "ready": self.ready and bool(self.running_since),
            "started": bool(self.running_since),
            "restartCount": self.restarts,
            "state": state,
            "lastState": {"terminated": self.last} if self.last else {},
        }


def pod_status(
    pod: Pod,
    states: Mapping[str, ContainerState],
    trouble: str,
    steps: list[dict[str, Any]] | None = None,
    failed: bool = False,
) -> dict[str, Any]:
    """Compose the status of a running, or starting, pod.

    Args:
        pod: the pod.
        states: its containers.
        trouble: why it is not ready.
        steps: statuses of its init containers; by default all have succeeded.
        failed: it has ended and is not started again.
    """
    statuses = [states[c["name"]].as_status(c["image"]) for c in pod.containers]
    ready = all(status["ready"] for status in statuses)
    started = any(states[c["name"]].running_since for c in pod.containers)
    return {
        "phase": "Failed" if failed else "Running" if started else "Pending",
        "hostIP": "127.0.0.1",
        "podIP": pod.address,
        "podIPs": [{"ip": pod.address}],
        "conditions": _conditions(pod, ready, trouble),
        "initContainerStatuses": _done(pod, "initContainers") if steps is None else steps,
        "containerStatuses": statuses,
    }


def finished_status(pod: Pod) -> dict[str, Any]:
    """The status of a Job's pod that has succeeded."""
    return {
        "phase": "Succeeded",
        "podIP": pod.address,
        "conditions": _conditions(pod, False, "PodCompleted"),
        "containerStatuses": _done(pod, "containers"),
    }


def _conditions(pod: Pod, ready: bool, trouble: str) -> list[dict[str, str]]:
    before = {c["type"]: c for c in pod.manifest.get("status", {}).get("conditions", [])}
    at = now()

    def condition(name: str, value: bool) -> dict[str, str]:
        wanted = {"type": name, "status": str(value)}
        if not value:
            wanted |= {"reason": "ContainersNotReady", "message": trouble or WAITING}
        old = before.get(name, {})
        same = old.get("status") == wanted["status"]
        return wanted | {"lastTransitionTime": old.get("lastTransitionTime", at) if same else at}

    names = (("Initialized", True), ("ContainersReady", ready), ("Ready", ready))
    return [condition(name, value) for name, value in names]


def _done(pod: Pod, kind: str) -> list[dict[str, Any]]:
    at = now()
    ended = {
        "terminated": {"exitCode": 0, "reason": "Completed", "startedAt": at, "finishedAt": at}
    }
    return [
        {"name": c["name"], "image": c["image"], "imageID": "", "ready": kind == "initContainers",
         "restartCount": 0, "state": ended}
        for c in pod.manifest["spec"].get(kind, [])
    ]  # fmt: skip
