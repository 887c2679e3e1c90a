"""Logs, port-forward and exec of a pod: KWOK serves them on the node's behalf, as these objects tell it.

https://kwok.sigs.k8s.io/docs/user/kwok-manage-logs-exec-attach-portforward/
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from cluster.kube import Kube, Manifest
from sandbox.agent.pod import Pod
from sandbox.processes import MARK

API = "kwok.x-k8s.io/v1alpha1"
KINDS = ("Logs", "PortForward", "Exec")


def grant(kube: Kube, pod: Pod, logs: Path) -> None:
    """Make a pod's output, ports and commands reachable through the API server; they go with the pod."""
    containers = [container["name"] for container in pod.containers]
    ports = sorted({p["containerPort"] for c in pod.containers for p in c.get("ports", [])})
    forwards = [
        {"ports": [port], "target": {"port": port, "address": pod.address}} for port in ports
    ]
    logs.touch(mode=0o600)
    # programs that an image would have on its PATH are in `bin`
    path = f"{pod.home / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    # KWOK starts a command and forgets it: by its mark it ends with the pod, as all processes of a container do
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
    """Copies what an engine prints into the form in which a container runtime keeps it, and `kubectl logs` reads it.

    Args:
        home: of the pod; `engine.log` is read, `containers.log` written.
    """

    def __init__(self, home: Path) -> None:
        self._source = home / "engine.log"
        self.file = home / "containers.log"
        self._position = 0
        if self.file.exists() and self._source.exists():  # an earlier agent's copy goes on
            self._position = self._source.stat().st_size

    def copy(self) -> None:
        """Copy the lines that have come since the last call."""
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
