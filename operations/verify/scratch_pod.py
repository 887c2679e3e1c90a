"""The pod of a scratch engine: its steps, in order, and its Secrets.

The first step fetches the data (`operations.verify.fetch`, in the worker's image); then come the engine's own tools,
then the engine, of the release's own image, resources and security context. Its Secrets are owned by it, so that
deleting it removes them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from archive.backup.manifest import Manifest as Set
from archive.wal.point import Point
from cluster.kube import Kube, Manifest
from components.base import Scratch
from config.models import Settings
from errors import ConfigurationError, Fault
from operations.environment.environment import Environment

LABEL, SET = "isa-cloud.io/scratch", "isa-cloud.io/set"
# Network policies let pods with it reach the object store, and all others nothing (namespace.yaml).
FETCHES = "isa-cloud.io/fetches"
FETCH, ENGINE = "fetch", "engine"
GIB = 1 << 30
HARDENED = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclass(frozen=True)
class Request:
    """The inputs of scratch engines.

    Attributes:
        settings: of the environment.
        kube: its cluster.
        chain: manifests of the backups that are needed, the one that is restored last.
        credentials: of the object store.
        identity: age private key.
        point: that the engine recovers to; None if it serves the backup itself.
    """

    settings: Settings
    kube: Kube
    chain: tuple[Set, ...]
    credentials: Mapping[str, str]
    identity: str
    point: Point | None = None

    @classmethod
    def of(
        cls,
        environment: Environment,
        chain: tuple[Set, ...],
        identity: str,
        point: Point | None = None,
    ) -> Request:
        """The inputs of scratch engines of an environment."""
        return cls(
            environment.settings, environment.kube, chain, environment.store_credentials(), identity, point
        )  # fmt: skip

    @property
    def manifest(self) -> Set:
        """Manifest of the backup that is restored."""
        return self.chain[-1]

    @property
    def namespace(self) -> str:
        """The namespace of scratch engines."""
        return self.settings.kubernetes.verify_namespace


def pod_of(request: Request, scratch: Scratch, name: str, release: Manifest) -> Manifest:
    """The pod.

    Args:
        request: for what.
        scratch: the engine.
        name: of the pod.
        release: StatefulSet whose image it runs.

    Raises:
        ConfigurationError: `verify.image` is not set.
    """
    template = release["spec"]["template"]["spec"]
    server = next(c for c in template["containers"] if c["name"] == scratch.container)
    mounts: list[Manifest] = [
        {"name": "scratch", "mountPath": "/scratch"},
        {"name": "temporary", "mountPath": "/tmp"},
    ]
    volumes: list[Manifest] = [_volume(request), {"name": "temporary", "emptyDir": {}}]
    if scratch.files:
        mounts.append({"name": "config", "mountPath": "/config", "readOnly": True})
        volumes.append({"name": "config", "secret": {"secretName": f"{name}-config"}})
    common = {
        "image": server["image"],
        "resources": server.get("resources", {}),
        "securityContext": {**server.get("securityContext", {}), **HARDENED},
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if scratch.environ:
        common["envFrom"] = [{"secretRef": {"name": f"{name}-environ"}}]
    first = []
    if scratch.placed:
        user = server.get("securityContext", {})
        first.append(
            _fetch(request, {key: user[key] for key in ("runAsUser", "runAsGroup") if key in user})
        )
        volumes.append({"name": "fetch", "secret": {"secretName": f"{name}-fetch"}})
    steps = [{"name": s.name, "command": list(s.command), **common} for s in scratch.steps]
    engine = {
        "name": ENGINE,
        "command": list(scratch.command),
        "ports": [{"containerPort": scratch.port}],
        **common,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": request.namespace,
            "labels": labels_of(request) | ({FETCHES: "true"} if scratch.placed else {}),
            "annotations": {SET: request.manifest.id},
        },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,  # there is nothing to save
            # of no use to anybody afterwards, whatever became of us
            "activeDeadlineSeconds": math.ceil(2 * request.settings.verify.timeout_seconds),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "imagePullSecrets": template.get("imagePullSecrets", []),
            "securityContext": {
                **template.get("securityContext", {}),
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "initContainers": [*first, *steps],
            "containers": [engine],
            "volumes": volumes,
        },
    }


def _fetch(request: Request, user: Manifest) -> Manifest:
    """The step that fetches the backup, as the engine's own user: no other can read a data directory."""
    image = request.settings.verify.image
    if image is None:
        raise ConfigurationError(
            [Fault("verify.image", "is not set", "the worker's own image, deployments/worker")]
        )
    return {
        "name": FETCH,
        "image": image.reference,
        "command": ["python", "-m", "operations.verify.fetch", "/fetch/request.json", "/scratch"],
        "resources": {key: {"cpu": "1", "memory": "1Gi"} for key in ("requests", "limits")},
        "securityContext": {**user, **HARDENED},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "scratch", "mountPath": "/scratch"},
            {"name": "temporary", "mountPath": "/tmp"},
            {"name": "fetch", "mountPath": "/fetch", "readOnly": True},
        ],
    }


def _volume(request: Request) -> Manifest:
    """A volume claim deleted with the pod: for the fetched data, the unpacked data, and space to start."""
    plain_size = sum(manifest.plain_size for manifest in request.chain)
    # WAL is there twice: as it was fetched, and in the engine's own directory
    wal_size = 2 * request.point.wal_bytes if request.point else 0
    gibibytes = max(1, math.ceil((3 * plain_size + wal_size) / GIB)) + 1
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": request.settings.verify.storage_class,
        "resources": {"requests": {"storage": f"{gibibytes}Gi"}},
    }
    return {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": claim}}}


def labels_of(request: Request) -> dict[str, str]:
    """The label selector of a component's scratch engines."""
    return {
        "app.kubernetes.io/managed-by": "isa-cloud",
        LABEL: request.manifest.component,
    }


def secrets_of(request: Request, scratch: Scratch, pod: Manifest) -> list[Manifest]:
    """The Secrets that the pod waits for, owned by it.

    Args:
        request: for what.
        scratch: the engine.
        pod: as the API server has it.
    """
    name = pod["metadata"]["name"]
    fetch_request = {
        "environment": request.manifest.environment,
        "set": request.manifest.id,
        "scratch": scratch.name,
        "store": request.settings.storage.object.model_dump(mode="json"),
        "credentials": dict(request.credentials),
        "identity": request.identity,
        "at": request.point.target.text if request.point else "",
        "signers": [s.model_dump(mode="json") for s in request.settings.backup.signers],
    }
    contents = {
        "environ": dict(scratch.environ),
        "config": dict(scratch.files),
        "fetch": {"request.json": json.dumps(fetch_request)} if scratch.placed else {},
    }
    owner = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod["metadata"]["uid"]}
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {
                "name": f"{name}-{kind}",
                "namespace": request.namespace,
                "labels": labels_of(request),
                "ownerReferences": [owner],
            },
            "stringData": content,
        }
        for kind, content in contents.items()
        if content
    ]
