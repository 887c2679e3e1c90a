"""Runs the init containers of a scratch engine, one after another like a kubelet.

The charts' init containers are not run: the sandbox's engine files prepare the same.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sandbox.agent.pod import Pod
from sandbox.agent.status import now
from sandbox.engines import commands
from sandbox.machine.paths import write_atomic
from sandbox.machine.processes import Daemon

TAIL_LINES = 12


class Steps:
    """The init containers of a pod. Their results are in its directory, where the next agent finds them.

    Args:
        pod: the pod.
    """

    def __init__(self, pod: Pod) -> None:
        self._file = pod.home / "steps.json"
        self._ended: dict[str, dict[str, Any]] = {}
        if self._file.exists():
            self._ended = json.loads(self._file.read_text(encoding="utf-8"))

    def advance(self, pod: Pod) -> bool:
        """Start the next init container if it is due. Returns True when all have succeeded."""
        for container in pod.steps:
            name = container["name"]
            if name not in self._ended:
                self._run(pod, container)
            if self._ended.get(name, {}).get("exitCode") != 0:
                return False
        return True

    @property
    def failed(self) -> bool:
        """Whether an init container failed. Then the pod has failed."""
        return any(ended["exitCode"] for ended in self._ended.values())

    def statuses(self, pod: Pod) -> list[dict[str, Any]]:
        """`initContainerStatuses`."""
        found = []
        for container in pod.steps:
            name = container["name"]
            ended = self._ended.get(name)
            daemon = self._daemon(pod, name)
            state: dict[str, Any] = {"waiting": {"reason": "PodInitializing"}}
            if ended is not None:
                state = {"terminated": ended}
            elif daemon.pid is not None:
                started = datetime.fromtimestamp(daemon.record.stat().st_mtime, UTC)
                state = {"running": {"startedAt": started.strftime("%Y-%m-%dT%H:%M:%SZ")}}
            found.append(
                {"name": name, "image": container["image"], "imageID": "", "restartCount": 0,
                 "ready": ended is not None and ended["exitCode"] == 0, "state": state}
            )  # fmt: skip
        return found

    def _run(self, pod: Pod, container: dict[str, Any]) -> None:
        daemon = self._daemon(pod, container["name"])
        if daemon.record.exists():
            if daemon.pid is None:
                self._note(daemon, container["name"])
            return
        pod.check_references()
        launch = commands.prepare(pod, container)
        daemon.start(launch.argv, launch.environ)

    def _note(self, daemon: Daemon, name: str) -> None:
        code = daemon.forget()
        self._ended[name] = terminated(daemon, code)
        write_atomic(self._file, json.dumps(self._ended))

    @staticmethod
    def _daemon(pod: Pod, name: str) -> Daemon:
        return Daemon(f"step-{name}", pod.home)


def terminated(daemon: Daemon, code: int) -> dict[str, Any]:
    """A container's `terminated` state; after a failure with the end of its log (`FallbackToLogsOnError`)."""
    ended: dict[str, Any] = {
        "exitCode": code,
        "reason": "Completed" if code == 0 else "Error",
        "finishedAt": now(),
    }
    if code:
        ended["message"] = daemon.tail(TAIL_LINES)[-2000:]
    return ended
