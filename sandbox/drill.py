"""The disaster drill: the engines' namespace with all volumes is lost, and comes back from the newest sets.

What an operator would do on a new cluster, with the same commands: namespace, the old Secrets, deploy, restore of all.
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
    """How it went.

    Attributes:
        stages: seconds of each part.
        restores: what was restored, as `isa restore --json` says it.
    """

    stages: dict[str, float] = field(default_factory=dict)
    restores: list[dict[str, Any]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From the loss to the end of the comparison."""
        return sum(self.stages.values())


def destroy(kube: Kube) -> None:
    """Lose the engines: namespace, volumes, Secrets. The object store and the control namespace are elsewhere."""
    kube.delete("v1", "Namespace", ENGINES_NAMESPACE)
    deadline = time.monotonic() + DELETE_SECONDS
    while kube.get("v1", "Namespace", ENGINES_NAMESPACE) is not None:
        assert time.monotonic() < deadline, "the namespace does not go"
        time.sleep(0.5)
    for volume in kube.list("v1", "PersistentVolume"):
        kube.delete("v1", "PersistentVolume", volume["metadata"]["name"])


def run(sandbox: Sandbox, isa: str, environ: Mapping[str, str], *how: str) -> Drill:
    """Lose everything and bring it back.

    Args:
        sandbox: with sets of every component in its object store.
        isa: the command.
        environ: of it.
        how: `--local`, or nothing for the Prefect server.

    Raises:
        subprocess.CalledProcessError: a step failed.
    """
    drill = Drill()

    def step(name: str, do: Callable[[], None]) -> None:
        began = time.monotonic()
        do()
        drill.stages[name] = round(time.monotonic() - began, 1)

    def command(*words: str) -> str:
        done = subprocess.run(
            [isa, *words], env=environ, check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout

    listed = json.loads(command("backups", "platform", "--json"))["backups"]
    platform = str(listed[-1]["id"])

    def restore() -> None:
        words = ("restore", "--all", "--other-cluster", "--no-safety-backup")
        drill.restores = json.loads(command(*words, "--yes", "--json", *how))["restores"]

    step("loss", lambda: destroy(sandbox.kube()))
    # by hand and not by a flow: on a new cluster there is no worker with such rights yet
    step("namespace", lambda: print(command("deploy", "--only", "namespace", "--local"), end=""))
    step("Secrets", lambda: print(command("secrets", "restore", platform), end=""))
    step("deploy", lambda: print(command("deploy", *how), end=""))
    step("restore and compare", restore)
    return drill
