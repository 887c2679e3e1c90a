"""Finds pods that read a ConfigMap or Secret at their start which an upgrade changes without restarting them.

Kubernetes restarts pods when their template changes. Many charts put a checksum of their configuration there, some do
not (EMQX's environment) or one of another object (PostgreSQL's extended configuration): helm then reports success and
the old settings stay in force. Such workloads are restarted here as `kubectl rollout restart` does it, one pod after
the other by their own controller.

A restart that is due is noted on the workload before helm runs, and the note goes with the restart itself: whatever is
killed in between, the next plan finds it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cluster.kube import Kube
from cluster.manifests import Manifest

# On the pod template: the annotation of kubectl (kubernetes/kubectl pkg/polymorphichelpers/objectrestarter.go).
RESTARTED = "kubectl.kubernetes.io/restartedAt"
# On the workload: which configuration its pods have yet to read.
DUE = "isa-cloud.io/restart-due"
KINDS = ("StatefulSet", "Deployment")
# Read once in the life of a volume, by the images' own rule (bitnami/containers, docker-library/postgres).
FIRST_START = "/docker-entrypoint-initdb.d"
CONTENT = ("data", "binaryData", "stringData")

Key = tuple[str, str]  # kind and name


@dataclass(frozen=True)
class Restart:
    """A workload whose pods must restart.

    Attributes:
        kind: StatefulSet or Deployment.
        name: of it.
        sources: what its pods read at their start and have not read yet, `ConfigMap/emqx-env`.
        configuration: digest of all that they read.
        reloads: whether a sidecar has the servers read it again: then pods restart only where that is refused.
    """

    kind: str
    name: str
    sources: tuple[str, ...]
    configuration: str
    reloads: bool = False

    def __str__(self) -> str:
        what, sources = f"{self.kind}/{self.name}", ", ".join(self.sources)
        if self.reloads:
            return f"{what}: its servers reload {sources}; if one refuses, its pods restart one after the other"
        return f"{what}: its pods restart one after the other to read {sources}"


def restarts_between(
    before: Iterable[Manifest], after: Iterable[Manifest], changed: Iterable[Key] = ()
) -> tuple[Restart, ...]:
    """Restarts that an upgrade needs beside those that a changed pod template brings by itself.

    Args:
        before: what was applied.
        after: what will be.
        changed: objects that are live otherwise than they were applied.
    """
    old, new = _by_key(before), _by_key(after)
    drifted = set(changed)
    restarts = []
    for key, workload in new.items():
        if key[0] not in KINDS or key not in old or _template(old[key]) != _template(workload):
            continue
        references = _references(workload)
        sources = [
            source
            for source in sorted(references)
            if source in new
            and (source in drifted or _content(old.get(source)) != _content(new[source]))
        ]
        if sources:
            restarts.append(
                Restart(
                    *key,
                    tuple(map("/".join, sources)),
                    _configuration(workload, new),
                    all(references[source] for source in sources),
                )
            )
    return tuple(restarts)


def restarts_due(kube: Kube, applied: Iterable[Manifest], namespace: str) -> tuple[Restart, ...]:
    """Restarts that a run which was killed has noted and not begun.

    Args:
        kube: the cluster.
        applied: what is.
        namespace: of the workloads.
    """
    objects = _by_key(applied)
    restarts = []
    for (kind, name), workload in objects.items():
        if kind in KINDS and any(source in objects for source in _references(workload)):
            live = kube.get(workload["apiVersion"], kind, name, namespace)
            configuration = _configuration(workload, objects)
            for sources in _noted(live, configuration):
                restarts.append(Restart(kind, name, sources, configuration))
    return tuple(restarts)


def sources_of(restarts: Iterable[Restart]) -> set[Key]:
    """What the pods have yet to read."""
    pairs = (source.partition("/") for restart in restarts for source in restart.sources)
    return {(kind, name) for kind, _, name in pairs}


def announce(
    kube: Kube, restarts: Iterable[Restart], manifests: Iterable[Manifest], namespace: str
) -> None:
    """Note restarts before what they are for is changed, and remove notes of what pods will read without one.

    Args:
        kube: the cluster.
        restarts: that are due after the change.
        manifests: of the release.
        namespace: of the workloads.
    """
    notes = {
        (restart.kind, restart.name): json.dumps(
            {"configuration": restart.configuration, "sources": restart.sources}
        )
        for restart in restarts
    }
    for kind, name in _by_key(manifests):
        live = kube.get("apps/v1", kind, name, namespace) if kind in KINDS else None
        if live is not None and _annotations(live).get(DUE) != notes.get((kind, name)):
            change = {"metadata": {"annotations": {DUE: notes.get((kind, name))}}}
            kube.patch(_object(kind, name, namespace), change)


def withdraw(kube: Kube, restarts: Iterable[Restart], namespace: str) -> None:
    """Remove notes of restarts that are not needed."""
    for item in restarts:
        change = {"metadata": {"annotations": {DUE: None}}}
        kube.patch(_object(item.kind, item.name, namespace), change)


def restart(kube: Kube, restarts: Iterable[Restart], namespace: str) -> None:
    """Begin restarts; the gate waits until they are over."""
    for item in restarts:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        template = {"metadata": {"annotations": {RESTARTED: now}}}
        change = {"metadata": {"annotations": {DUE: None}}, "spec": {"template": template}}
        kube.patch(_object(item.kind, item.name, namespace), change)


# ---------------------------------------------------------------------- inside
def _object(kind: str, name: str, namespace: str) -> Manifest:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata}


def _by_key(manifests: Iterable[Manifest]) -> dict[Key, Manifest]:
    return {(m["kind"], m["metadata"]["name"]): m for m in manifests}


def _template(workload: Manifest) -> Any:
    return workload["spec"]["template"]


def _annotations(live: Manifest | None) -> Mapping[str, str]:
    return ((live or {}).get("metadata", {}) or {}).get("annotations") or {}


def _noted(live: Manifest | None, configuration: str) -> Iterator[tuple[str, ...]]:
    """What a workload's pods have yet to read, if it is noted for this configuration."""
    try:
        note = json.loads(_annotations(live).get(DUE, "{}"))
        if note.get("configuration") == configuration:
            yield tuple(map(str, note["sources"]))
    except (ValueError, AttributeError, KeyError, TypeError):
        return  # somebody has written there by hand: it is no note of ours


def _content(manifest: Manifest | None) -> Any:
    return [(manifest or {}).get(part) or {} for part in CONTENT]


def _configuration(workload: Manifest, objects: Mapping[Key, Manifest]) -> str:
    read = {"/".join(key): _content(objects.get(key)) for key in sorted(_references(workload))}
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:16]


def _references(workload: Manifest) -> dict[Key, bool]:
    """ConfigMaps and Secrets that a workload's pods read → whether a sidecar has them read again."""
    pod = _template(workload)["spec"]
    containers = [*(pod.get("initContainers") or ()), *(pod.get("containers") or ())]
    references: dict[Key, bool] = {}
    mounts: dict[str, list[str]] = {}
    watched: set[str] = set()
    for container in containers:
        for mount in container.get("volumeMounts") or ():
            mounts.setdefault(mount["name"], []).append(mount["mountPath"])
            if "reload" in container["name"]:  # a sidecar that tells the server of a change
                watched.add(mount["name"])
    for volume in pod.get("volumes") or ():
        paths = mounts.get(volume["name"], ())
        if not all(path.startswith(FIRST_START) for path in paths):
            references |= dict.fromkeys(_volume(volume), volume["name"] in watched)
    # what is read at the start, too, is in force after a restart only
    return references | {key: False for container in containers for key in _environment(container)}


def _environment(container: Mapping[str, Any]) -> Iterator[Key]:
    for source in container.get("envFrom") or ():
        yield from _named(source, "configMapRef", "secretRef")
    for entry in container.get("env") or ():
        yield from _named(entry.get("valueFrom") or {}, "configMapKeyRef", "secretKeyRef")


def _volume(volume: Mapping[str, Any]) -> Iterator[Key]:
    for source in (volume, *((volume.get("projected") or {}).get("sources") or ())):
        yield from _named(source, "configMap", "secret")


def _named(source: Mapping[str, Any], config_map: str, secret: str) -> Iterator[Key]:
    for kind, key in (("ConfigMap", config_map), ("Secret", secret)):
        reference = source.get(key) or {}
        name = reference.get("name") or reference.get("secretName")
        if name:
            yield kind, name
