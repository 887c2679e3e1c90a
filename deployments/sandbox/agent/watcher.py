"""Finds the pods that the scheduler has bound and gives each its runner; removes the data of deleted volumes."""

from __future__ import annotations

import shutil
import time

from cluster.kube import Manifest
from deployments.sandbox.agent.pod import Host
from deployments.sandbox.agent.runner import Runner
from errors import IsaError

# Thirty pods are 200 KB and 5 ms; a watch would save that and need a resync besides.
POLL_SECONDS = 0.5
VOLUMES_SECONDS = 2.0


def watch(host: Host) -> None:
    """Run pods for ever."""
    runners: dict[str, Runner] = {}
    volumes_due = 0.0
    while True:
        try:
            _look(host, runners)
            if time.monotonic() > volumes_due:
                _remove_volumes(host)
                volumes_due = time.monotonic() + VOLUMES_SECONDS
        except IsaError as exc:  # engines go on while the API server is away
            print(exc, flush=True)
        time.sleep(POLL_SECONDS)


def _look(host: Host, runners: dict[str, Runner]) -> None:
    kind: Manifest = {"apiVersion": "v1", "kind": "Pod"}  # which the items of a list lack
    pods = {pod["metadata"]["uid"]: kind | pod for pod in host.kube.list("v1", "Pod")}
    for uid, pod in pods.items():
        runner = runners.get(uid)
        if runner is not None:
            runner.update(pod)
        elif pod["spec"].get("nodeName"):
            runners[uid] = Runner(pod, host)
            runners[uid].start()
    for uid in [uid for uid in runners if uid not in pods]:
        runners.pop(uid).vanish()
    for uid in [uid for uid, runner in runners.items() if not runner.alive]:
        del runners[uid]


def _remove_volumes(host: Host) -> None:
    root = host.directory / "volumes"
    # directories first: one that is made in between belongs to a volume that the list has
    directories = list(root.iterdir()) if root.exists() else []
    names = {volume["metadata"]["name"] for volume in host.kube.list("v1", "PersistentVolume")}
    for directory in directories:
        if directory.name not in names:
            shutil.rmtree(directory, ignore_errors=True)
