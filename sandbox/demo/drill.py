"""The disaster drill: deletes the engines' namespace with all volumes, and recovers it from the newest backups.

It runs the commands of an operator on a new cluster: deploy the namespace, restore the Secrets, deploy, restore all.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.kube import Kube
from sandbox.cluster import ENGINES_NAMESPACE, Sandbox

DELETE_SECONDS = 180.0


@dataclass
class Drill:
    """The result of a drill.

    Attributes:
        stages: step → seconds.
        restores: the restores in the output of `isa restore --json`.
    """

    stages: dict[str, float] = field(default_factory=dict)
    restores: list[dict[str, Any]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Seconds from the loss to the end of the comparison."""
        return sum(self.stages.values())


def destroy(kube: Kube) -> None:
    """Delete the engines' namespace, volumes and Secrets. The object store and the control namespace stay."""
    kube.delete("v1", "Namespace", ENGINES_NAMESPACE)
    deadline = time.monotonic() + DELETE_SECONDS
    while kube.get("v1", "Namespace", ENGINES_NAMESPACE) is not None:
        assert time.monotonic() < deadline, "the namespace was not deleted"
        time.sleep(0.5)
    for volume in kube.list("v1", "PersistentVolume"):
        kube.delete("v1", "PersistentVolume", volume["metadata"]["name"])


def run(sandbox: Sandbox, isa: str, environ: Mapping[str, str], *how: str) -> Drill:
    """Delete the platform and recover it.

    Args:
        sandbox: a sandbox with backups of every component.
        isa: path of the command.
        environ: the command's environment.
        how: `--local`, or nothing to use the Prefect server.

    Raises:
        subprocess.CalledProcessError: a step failed.
    """
    drill = Drill()

    def step(name: str, do: Callable[[], None]) -> None:
        began = time.monotonic()
        do()
        drill.stages[name] = round(time.monotonic() - began, 1)

    def command(*arguments: str) -> str:
        process = subprocess.run(
            [isa, *arguments], env=environ, check=True, stdout=subprocess.PIPE, text=True
        )
        return process.stdout

    listed = json.loads(command("backups", "platform", "--json"))["backups"]
    platform = str(listed[-1]["id"])

    def restore() -> None:
        arguments = ("restore", "--all", "--other-cluster", "--no-safety-backup")
        drill.restores = json.loads(command(*arguments, "--yes", "--json", *how))["restores"]

    step("loss", lambda: destroy(sandbox.kube()))
    # --local, because a new cluster has no worker with these rights yet
    step("namespace", lambda: print(command("deploy", "--only", "namespace", "--local"), end=""))
    step("Secrets", lambda: print(command("secrets", "restore", platform), end=""))
    step("deploy", lambda: print(command("deploy", *how), end=""))
    step("restore and compare", restore)
    return drill
