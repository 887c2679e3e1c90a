"""Logs, port-forward and exec of a pod. KWOK serves them in place of the node, configured by these objects.

https://kwok.sigs.k8s.io/docs/user/kwok-manage-logs-exec-attach-portforward/
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from cluster.kube import Kube, Manifest
from sandbox.agent.pod import Pod
from sandbox.machine.processes import MARK

API = "kwok.x-k8s.io/v1alpha1"
KINDS = ("Logs", "PortForward", "Exec")


def grant(kube: Kube, pod: Pod, logs: Path) -> None:
    """Create the objects for a pod's logs, ports and commands. They are deleted with the pod."""
    containers = [container["name"] for container in pod.containers]
    ports = sorted({p["containerPort"] for c in pod.containers for p in c.get("ports", [])})
    forwards = [
        {"ports": [port], "target": {"port": port, "address": pod.address}} for port in ports
    ]
    logs.touch(mode=0o600)
    # `bin` has the programs that an image would have on its PATH
    path = f"{pod.home / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    # KWOK does not end the commands that it starts. By its mark a command ends with the pod.
    environ = {"PATH": path, MARK: str(pod.home)}
    envs = [{"name": name, "value": value} for name, value in environ.items()]
    local = {"workDir": str(pod.home), "envs": envs}
    specs: dict[str, Manifest] = {
        "Logs": {"logs": [{"containers": containers, "logsFile": str(logs), "follow": True}]},
        "PortForward": {"forwards": forwards},
        "Exec": {"execs": [{"containers": containers, "local": local}]},
    }
    for kind in KINDS:
        kube.apply(_manifest(pod, kind, specs[kind]), manager="isa-sandbox")


class Output:
    """Copies an engine's output in the format of container runtimes, for `kubectl logs`.

    Args:
        home: the pod's directory; `engine.log` is read and `containers.log` is written.
    """

    def __init__(self, home: Path) -> None:
        self._source = home / "engine.log"
        self.file = home / "containers.log"
        self._position = 0
        if self.file.exists() and self._source.exists():  # continue the copy of an earlier agent
            self._position = self._source.stat().st_size

    def copy(self) -> None:
        """Copy new lines."""
        try:
            if self._source.stat().st_size == self._position:
                return
        except FileNotFoundError:
            return
        with self._source.open("rb") as source, self.file.open("ab") as copy:
            source.seek(self._position)
            at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z").encode()
            for line in source:
                if not line.endswith(b"\n"):  # it is still being written
                    break
                copy.write(at + b" stdout F " + line)
                self._position += len(line)


def _manifest(pod: Pod, kind: str, spec: Manifest) -> Manifest:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid}
    return {
        "apiVersion": API,
        "kind": kind,
        "metadata": {"name": pod.name, "namespace": pod.namespace, "ownerReferences": [owner]},
        "spec": spec,
    }
