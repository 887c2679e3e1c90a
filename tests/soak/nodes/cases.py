"""What cases on real nodes share: pods of a shell under the rules of the namespace, and waiting for what they do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.kube import Kube, Manifest
from sandbox.machine.processes import running_below
from sandbox.nodes.capsules.capsule import groups_left
from sandbox.nodes.cluster import Nodes
from sandbox.nodes.images.pods import BUSYBOX
from tests.soak.case_table import CaseTable, expect

NAMESPACE = "isa-cloud-production"


@dataclass
class NodeCases(CaseTable, ABC):
    """Cases on one cluster.

    Attributes:
        nodes: the cluster.
    """

    nodes: Nodes = field(kw_only=True)

    @property
    def kube(self) -> Kube:
        return self.nodes.kube()

    @abstractmethod
    def run(self) -> None:
        """Try all cases of the group, in their order."""

    def nothing_is_left(self) -> None:
        directory = self.nodes.directory
        self.nodes.down()
        groups = groups_left(f"isa-{self.nodes.name}")
        mounts = [
            one
            for one in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
            if str(directory) in one
        ]
        expect(not groups, f"cgroups are left: {groups}")
        expect(not mounts, f"mounts are left: {mounts}")
        expect(not running_below(directory), f"processes are left: {running_below(directory)}")
        expect(not directory.exists(), f"{directory} is left")

    # ------------------------------------------------------------------ how they ask
    def read(self, name: str) -> Manifest:
        return self.kube.get("v1", "Pod", name, NAMESPACE) or {}

    def wait(self, name: str, words: str, condition: Callable[[Manifest], object]) -> Manifest:
        """Wait for a pod's state."""
        self.until(
            lambda: bool(condition(self.read(name))),
            f"{name} should {words}",
            lambda: self.read(name).get("status"),
        )
        return self.read(name)


def pod(
    name: str,
    script: str,
    labels: dict[str, str] | None = None,
    cpu: str = "50m",
    memory: str = "32Mi",
    **more: Any,
) -> Manifest:
    """A pod under the namespace's strictest rules, whose shell runs a script."""
    resources = {"cpu": cpu, "memory": memory}
    container = {
        "name": "shell",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", script],
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        **more,
    }
    security = {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels or {}},
        "spec": {
            "containers": [container],
            "securityContext": security,
            "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }


def container_of(read: Manifest) -> dict[str, Any]:
    statuses = read.get("status", {}).get("containerStatuses") or [{}]
    return dict(statuses[0])


def is_ready(read: Manifest) -> bool:
    return bool(container_of(read).get("ready"))


def ended(read: Manifest) -> tuple[str, int]:
    """Why a container ended, now or before its restart."""
    status = container_of(read)
    states = [status.get(one, {}).get("terminated", {}) for one in ("state", "lastState")]
    return next(((one["reason"], one["exitCode"]) for one in states if one), ("", 0))


def waiting(read: Manifest) -> str:
    return str(container_of(read).get("state", {}).get("waiting", {}).get("reason", ""))
