"""Gives every claim a volume, as an array's provisioner does.

`python -m sandbox.nodes.helpers.volumes KUBECONFIG DIRECTORY`.

All nodes share the machine's files, so a directory is reachable from every node, and a volume moves with its pod. The
volumes are of the type `local`, the only one on directories for which kubelet applies fsGroup. Sizes are not enforced.
"""

from __future__ import annotations

import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Protocol

from cluster.kube import Conflict, Kube, Manifest
from errors import IsaError
from sandbox.cluster import kubernetes_settings

log = logging.getLogger(__name__)

# The volume controller writes it on a claim once its pod is scheduled, or at once where the class does not wait.
PROVISIONER = "volume.kubernetes.io/storage-provisioner"
EVERY_SECONDS = 0.5


class Api(Protocol):
    """What is needed of a cluster."""

    def list(self, api_version: str, kind: str) -> list[Manifest]:
        """All objects of a kind."""

    def create(self, manifest: Manifest) -> Manifest:
        """Create an object."""

    def delete(self, api_version: str, kind: str, name: str) -> None:
        """Delete one."""


def provision(kube: Api, directory: Path) -> None:
    """Make the volumes that claims wait for, and remove those that their class gives up."""
    for claim in kube.list("v1", "PersistentVolumeClaim"):
        provisioner = claim["metadata"].get("annotations", {}).get(PROVISIONER)
        gone = "deletionTimestamp" in claim["metadata"]
        if provisioner and not gone and not claim["spec"].get("volumeName"):
            path = directory / f"pvc-{claim['metadata']['uid']}"
            path.mkdir(parents=True, exist_ok=True)
            try:
                kube.create(_volume(claim, path, provisioner))
            except Conflict:  # made before; the volume controller has yet to bind it
                log.debug("%s is there", path.name)
    for volume in kube.list("v1", "PersistentVolume"):
        path = Path(volume["spec"].get("local", {}).get("path", "/"))
        given_up = volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
        if path.parent == directory and given_up and volume["status"]["phase"] == "Released":
            kube.delete("v1", "PersistentVolume", volume["metadata"]["name"])
            shutil.rmtree(path, ignore_errors=True)


def _volume(claim: Manifest, path: Path, provisioner: str) -> Manifest:
    spec = claim["spec"]
    on_linux = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": path.name,
            "annotations": {"pv.kubernetes.io/provisioned-by": provisioner},
        },
        "spec": {
            "accessModes": spec["accessModes"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "storageClassName": spec["storageClassName"],
            # no reclaim policy: volume-reclaim-policy.yaml takes it from the class
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                **{key: claim["metadata"][key] for key in ("name", "namespace", "uid")},
            },
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_linux]}]}},
        },
    }


def main() -> None:
    """Provision until it is ended."""
    kubeconfig, directory = map(Path, sys.argv[1:])
    kube = Kube.connect(kubernetes_settings(kubeconfig))
    while True:
        try:
            provision(kube, directory)
        except IsaError as exc:  # the API server is away, or somebody was faster
            print(exc, file=sys.stderr, flush=True)
        time.sleep(EVERY_SECONDS)


if __name__ == "__main__":
    main()
