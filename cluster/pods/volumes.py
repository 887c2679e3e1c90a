"""Retains the volumes of a workload, and restores their claims: a claim is removed only when no data is lost with it.

With the reclaim policy Delete, a volume is deleted with its claim
(https://kubernetes.io/docs/concepts/storage/persistent-volumes/#reclaiming). So the policy becomes Retain first, on all
volumes, before anything of the workload is removed, and only then the claims are. The volume's annotations hold its
old claim, and its labels stay until it is in use again, so that an interrupted run finds it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from cluster.command import CANCELLATION
from cluster.kube import Kube, Manifest
from errors import PermanentError, TemporaryError

log = logging.getLogger(__name__)

COMPONENT, REBUILD = "isa-cloud.io/component", "isa-cloud.io/rebuild"
CLAIM, POLICY, COMPARED = (
    "isa-cloud.io/claim",
    "isa-cloud.io/reclaim-policy",
    "isa-cloud.io/compared",
)
PAUSE_SECONDS, GONE_SECONDS = 0.5, 180.0


@dataclass(frozen=True)
class Volume:
    """A retained volume.

    Attributes:
        name: of the PersistentVolume.
        claim: name of the claim that it was bound to.
        size: its capacity, `8Gi`.
        rebuild: that retained it.
        compared: when the new data was compared and found equal (ISO 8601); "" if it was not yet.
        bound: whether it has a claim now: it was not retained yet, or its claim is restored.
        manifest: the PersistentVolume.
    """

    name: str
    claim: str
    size: str
    rebuild: str
    compared: str
    bound: bool
    manifest: Manifest


def claims_of(kube: Kube, namespace: str, workloads: Iterable[str]) -> list[Manifest]:
    """Claims of StatefulSets, which Kubernetes names `TEMPLATE-STATEFULSET-ORDINAL`."""
    names = tuple(workloads)
    claims = kube.list("v1", "PersistentVolumeClaim", namespace)
    return [c for c in claims if any(_is_of(c["metadata"]["name"], name) for name in names)]


def aside(kube: Kube, component: str) -> list[Volume]:
    """Retained volumes of a component, oldest rebuild first."""
    manifests = kube.list("v1", "PersistentVolume", selector=f"{COMPONENT}={component},{REBUILD}")
    return sorted(
        (_volume(volume) for volume in manifests), key=lambda volume: (volume.rebuild, volume.claim)
    )


def keep(kube: Kube, claims: Iterable[Manifest], component: str, rebuild: str) -> None:
    """Mark volumes so that they outlive their claims and can be found; the claims stay.

    Args:
        kube: the cluster.
        claims: of the workloads; one that never got a volume is ignored.
        component: whose they are.
        rebuild: that will retain them; a label value.

    Raises:
        PermanentError: the volume of a claim does not exist.
    """
    bound = [(claim, _bound(kube, claim)) for claim in claims]
    for claim, volume in bound:
        if volume is not None:
            _keep(kube, volume, claim, component, rebuild)


def put_aside(kube: Kube, claims: Iterable[Manifest], component: str, rebuild: str) -> list[Volume]:
    """Keep the volumes and remove their claims; volumes that are retained already are skipped.

    Args:
        kube: the cluster.
        claims: of workloads that no longer exist: a claim in use would stay until its pod ends.
        component: whose they are.
        rebuild: that retains them; a label value.

    Raises:
        PermanentError: the volume of a claim does not exist.
        TemporaryError: the claims were not deleted, because a pod still uses them.
    """
    retained = {
        volume.claim: volume.name for volume in aside(kube, component) if volume.rebuild == rebuild
    }
    # another volume under the name of one that is kept is the new one of a run that got further
    removable = [
        c
        for c in claims
        if retained.get(c["metadata"]["name"]) in (None, c["spec"].get("volumeName"))
    ]
    keep(kube, removable, component, rebuild)
    for claim in removable:  # only now that every volume is retained
        _delete(kube, claim)
    _await_gone(kube, removable)
    return [volume for volume in aside(kube, component) if volume.rebuild == rebuild]


def in_place(kube: Kube, namespace: str, volume: Volume) -> bool:
    """Whether its own claim has a volume now, so that there is nothing to restore."""
    claim = kube.get("v1", "PersistentVolumeClaim", volume.claim, namespace)
    return (
        claim is not None
        and claim["spec"].get("volumeName") == volume.name
        and "deletionTimestamp" not in claim["metadata"]
    )


def put_back(kube: Kube, namespace: str, volumes: Iterable[Volume]) -> None:
    """Restore the claims of volumes; the claims that replaced them are deleted with their volumes.

    The volumes stay marked as retained until `forget` is called, once they are in use.

    Args:
        kube: the cluster.
        namespace: of the claims.
        volumes: retained, of a workload that does not exist now.

    Raises:
        TemporaryError: a claim was not deleted.
    """
    unbound = [volume for volume in volumes if not in_place(kube, namespace, volume)]
    newer = []
    for volume in unbound:
        claim = kube.get("v1", "PersistentVolumeClaim", volume.claim, namespace)
        if claim is not None:
            _delete(kube, claim)
            newer.append(claim)
    _await_gone(kube, newer)
    for volume in unbound:
        # the old claim's uid would keep the volume Released forever
        reference = {
            "name": volume.claim,
            "namespace": namespace,
            "uid": None,
            "resourceVersion": None,
        }
        kube.patch(_named(volume.name), {"spec": {"claimRef": reference}})
        kube.create(_claim(volume, namespace))


def forget(kube: Kube, volumes: Iterable[Volume]) -> None:
    """Remove the marks from volumes that are in use again, and restore their reclaim policy."""
    for volume in volumes:
        policy = volume.manifest["metadata"]["annotations"][POLICY]
        kube.patch(
            _named(volume.name),
            {
                "metadata": {
                    "labels": {COMPONENT: None, REBUILD: None},
                    "annotations": {CLAIM: None, POLICY: None, COMPARED: None},
                },
                "spec": {"persistentVolumeReclaimPolicy": policy},
            },
        )


def mark_compared(kube: Kube, volumes: Iterable[Volume], when: str) -> None:
    """Record on volumes when the new data was compared and found equal: from then on they may be deleted some day.

    Args:
        kube: the cluster.
        volumes: that were put aside.
        when: ISO 8601; "" takes the mark off again.
    """
    for volume in volumes:
        kube.patch(_named(volume.name), {"metadata": {"annotations": {COMPARED: when}}})


def release(kube: Kube, volumes: Iterable[Volume]) -> None:
    """Delete volumes.

    Raises:
        PermanentError: the data that replaced one was never compared, or one is in use.
    """
    chosen = list(volumes)
    refused = [volume.name for volume in chosen if not volume.compared or volume.bound]
    if refused:
        raise PermanentError(
            f"{', '.join(refused)}: in use, or the new data was never compared with them; they are kept"
        )
    for volume in chosen:  # with Delete the storage goes as well as the object
        change = {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}
        kube.patch(_named(volume.name), change)


# ---------------------------------------------------------------------- inside
def _is_of(claim: str, workload: str) -> bool:
    head, _, ordinal = claim.rpartition("-")
    return ordinal.isdigit() and head.endswith(f"-{workload}")


def _named(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}}


def _bound(kube: Kube, claim: Manifest) -> Manifest | None:
    """The volume of a claim; None if it never got one."""
    name = claim["spec"].get("volumeName")
    if not name:
        return None
    volume = kube.get("v1", "PersistentVolume", name)
    if volume is None:
        metadata = claim["metadata"]
        raise PermanentError(
            f"volume {name} of claim {metadata['namespace']}/{metadata['name']} no longer exists: remove the claim "
            f"first (kubectl -n {metadata['namespace']} delete pvc {metadata['name']})"
        )
    return volume


def _keep(kube: Kube, volume: Manifest, claim: Manifest, component: str, rebuild: str) -> None:
    spec: dict[str, Any] = {k: v for k, v in claim["spec"].items() if k != "volumeName"}
    saved = {
        "name": claim["metadata"]["name"],
        "labels": claim["metadata"].get("labels", {}),
        "spec": spec,
    }
    policy = volume["spec"].get("persistentVolumeReclaimPolicy", "Retain")
    change = {
        "metadata": {
            "labels": {COMPONENT: component, REBUILD: rebuild},
            "annotations": {
                CLAIM: json.dumps(saved),
                # one that is marked already has its own policy there, and Retain since
                POLICY: volume["metadata"].get("annotations", {}).get(POLICY, policy),
                COMPARED: None,
            },
        },
        "spec": {"persistentVolumeReclaimPolicy": "Retain"},
    }
    kube.patch(_named(volume["metadata"]["name"]), change)


def _delete(kube: Kube, claim: Manifest) -> None:
    """Remove exactly this claim, by uid: a run that was suspended must not delete a newer claim of that name."""
    metadata = claim["metadata"]
    address = (metadata["name"], metadata["namespace"])
    kube.delete("v1", "PersistentVolumeClaim", *address, uid=metadata["uid"])


def _claim(volume: Volume, namespace: str) -> Manifest:
    saved = json.loads(volume.manifest["metadata"]["annotations"][CLAIM])
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": saved["name"], "namespace": namespace, "labels": saved["labels"]},
        "spec": {**saved["spec"], "volumeName": volume.name},
    }


def _volume(manifest: Manifest) -> Volume:
    metadata = manifest["metadata"]
    annotations = metadata.get("annotations", {})
    return Volume(
        metadata["name"],
        str(json.loads(annotations.get(CLAIM, "{}")).get("name", "")),
        str(manifest["spec"].get("capacity", {}).get("storage", "")),
        metadata["labels"][REBUILD],
        annotations.get(COMPARED, ""),
        manifest.get("status", {}).get("phase") == "Bound",
        manifest,
    )


def _await_gone(
    kube: Kube,
    claims: Iterable[Manifest],
    sleep: Callable[[float], None] = CANCELLATION.sleep,
) -> None:
    waited = 0.0
    remaining = list(claims)
    while remaining:
        existing = []
        for claim in remaining:
            metadata = claim["metadata"]
            live = kube.get("v1", "PersistentVolumeClaim", metadata["name"], metadata["namespace"])
            if live is not None and live["metadata"]["uid"] == metadata["uid"]:
                existing.append(claim)
        remaining = existing
        if remaining and waited >= GONE_SECONDS:
            names = ", ".join(claim["metadata"]["name"] for claim in remaining)
            raise TemporaryError(
                f"claims {names} still exist after {waited:.0f} s: a pod uses them"
            )
        if remaining:
            log.info(
                "waiting until claims %s are deleted",
                ", ".join(c["metadata"]["name"] for c in remaining),
            )
            sleep(PAUSE_SECONDS)
            waited += PAUSE_SECONDS
