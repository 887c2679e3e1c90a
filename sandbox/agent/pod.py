"""A pod with its environment, files and volumes, resolved like a kubelet does."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cluster.kube import Kube, Manifest
from sandbox.agent.addresses import AddressBook

HOLD = "isa-cloud.io/hold"  # do not start the process again; for fault tests
NEVER_READY = "isa-cloud.io/never-ready"
SCRATCH = "isa-cloud.io/scratch"  # label of scratch engines, which run their own command lines
REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


class NotStartable(Exception):
    """A container cannot start; the message is that of its `waiting` state.

    Attributes:
        reason: `CreateContainerConfigError`, `ContainerCreating`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Host:
    """Everything that the pods of a sandbox share.

    Attributes:
        kube: the cluster.
        kubeconfig: file for engines that use the cluster's API.
        context: its context.
        book: the pods' addresses.
        directory: has `pods/` and `volumes/`.
        programs: returns the path of a built program.
    """

    kube: Kube
    kubeconfig: Path
    context: str
    book: AddressBook
    directory: Path
    programs: Callable[[str], Path]


@dataclass(frozen=True)
class Pod:
    """A bound pod, with a cache of the objects that it refers to.

    Attributes:
        manifest: its object in the API.
        host: where it runs.
    """

    manifest: Manifest
    host: Host
    _read: dict[tuple[str, str], dict[str, str]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.manifest["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.manifest["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        """Its UID; an earlier pod of the same name has another one."""
        return str(self.manifest["metadata"]["uid"])

    @property
    def annotations(self) -> Mapping[str, str]:
        """Its annotations."""
        return self.manifest["metadata"].get("annotations") or {}

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Its containers' specifications."""
        return list(self.manifest["spec"]["containers"])

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Init containers that are run: only those of scratch engines."""
        return list(self.manifest["spec"].get("initContainers", [])) if self.scratch else []

    @property
    def scratch(self) -> bool:
        """Whether it is a scratch engine: it runs its own command line, once."""
        return SCRATCH in (self.manifest["metadata"].get("labels") or {})

    @property
    def address(self) -> str:
        """Its loopback address."""
        return self.host.book.of(self.namespace, self.name)

    @property
    def home(self) -> Path:
        """Directory for configuration, logs and scratch volumes. It is deleted with the pod."""
        return self.host.directory / "pods" / f"{self.namespace}_{self.name}_{self.uid[:8]}"

    @cached_property
    def peers(self) -> dict[str, str]:
        """Name → address of all pods of its StatefulSet, including itself and pods that do not run."""
        owner = next(iter(self.manifest["metadata"].get("ownerReferences", [])), None)
        if owner is None or owner["kind"] != "StatefulSet":
            return {self.name: self.address}
        workload = self.host.kube.get("apps/v1", "StatefulSet", owner["name"], self.namespace) or {}
        count = int(workload.get("spec", {}).get("replicas", 1))
        names = [f"{owner['name']}-{number}" for number in range(count)]
        return {name: self.host.book.of(self.namespace, name) for name in names}

    def resolve(self, text: str) -> str:
        """Replace the DNS names in a text by addresses."""
        return self.host.book.resolve(self.namespace, text)

    # ------------------------------------------------------------------ references
    def environment(self, container: Mapping[str, Any]) -> dict[str, str]:
        """Variables of a container.

        Raises:
            NotStartable: a Secret, a ConfigMap or a key of one is missing.
        """
        found: dict[str, str] = {}
        for source in container.get("envFrom") or []:
            for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if key in source:
                    found |= self.data(
                        kind, source[key]["name"], source[key].get("optional", False)
                    )
        for variable in container.get("env") or []:
            value = self._value(variable)
            if value is not None:
                found[variable["name"]] = REFERENCE.sub(lambda m: found.get(m[1], m[0]), value)
        return found

    def files(self, volume: str) -> dict[str, str]:
        """Content of a ConfigMap or Secret volume by file name.

        Raises:
            NotStartable: an object or a key is missing.
        """
        spec = next(v for v in self.manifest["spec"].get("volumes", []) if v["name"] == volume)
        sources = spec["projected"]["sources"] if "projected" in spec else [spec]
        files: dict[str, str] = {}
        for source in sources:
            kind, reference, name = _reference(source)
            if reference is None:
                continue
            data = self.data(kind, name, reference.get("optional", False))
            items = reference.get("items") or [{"key": key, "path": key} for key in data]
            for item in items:
                if item["key"] not in data:
                    raise NotStartable(
                        "ContainerCreating",
                        f"MountVolume.SetUp failed for volume {volume!r}: references non-existent key {item['key']} "
                        f"of {kind} {name}",
                    )
                files[item["path"]] = data[item["key"]]
        return files

    def file(self, volume: str, name: str) -> str:
        """Content of one file of a ConfigMap or Secret volume.

        Raises:
            NotStartable: there is no such file. A kubelet would mount an empty directory and the program would fail.
        """
        files = self.files(volume)
        if name not in files:
            raise NotStartable(
                "CreateContainerConfigError", f"volume {volume!r} has no file {name}"
            )
        return files[name]

    def volume(self, name: str) -> Path:
        """Directory of a claim's or an emptyDir's data.

        Raises:
            NotStartable: the claim is not bound.
        """
        spec = next(v for v in self.manifest["spec"].get("volumes", []) if v["name"] == name)
        claim = spec.get("persistentVolumeClaim")
        if "ephemeral" in spec:
            claim = {"claimName": f"{self.name}-{name}"}
        if claim is None:
            directory = self.home / "volumes" / name
        else:
            kube = self.host.kube
            live = kube.get("v1", "PersistentVolumeClaim", claim["claimName"], self.namespace) or {}
            if live.get("status", {}).get("phase") != "Bound":
                message = f"claim {claim['claimName']} is not bound"
                raise NotStartable("ContainerCreating", message)
            directory = self.host.directory / "volumes" / live["spec"]["volumeName"]
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return directory

    def check_references(self) -> None:
        """Check all referenced objects before anything starts.

        Raises:
            NotStartable: a Secret, ConfigMap, key or claim is missing.
        """
        for volume in self.manifest["spec"].get("volumes", []):
            if {"persistentVolumeClaim", "ephemeral"} & set(volume):
                self.volume(volume["name"])
            elif {"secret", "configMap", "projected"} & set(volume):
                self.files(volume["name"])
        for container in self.containers:
            self.environment(container)
            self._check_single_files(container)

    def _check_single_files(self, container: Mapping[str, Any]) -> None:
        kept = {
            volume["name"]
            for volume in self.manifest["spec"].get("volumes", [])
            if {"secret", "configMap"} & set(volume)
        }
        for mount in container.get("volumeMounts") or []:
            if mount["name"] in kept and mount.get("subPath"):
                self.file(mount["name"], mount["subPath"])

    def data(self, kind: str, name: str, optional: bool = False) -> dict[str, str]:
        """Values of a ConfigMap or Secret.

        Raises:
            NotStartable: it does not exist.
        """
        if (kind, name) in self._read:
            return self._read[kind, name]
        live = self.host.kube.get("v1", kind, name, self.namespace)
        if live is None:
            if optional:
                return {}
            raise NotStartable("CreateContainerConfigError", f"{kind.lower()} {name!r} not found")
        values = dict(live.get("data") or {})
        if kind == "Secret":
            values = {key: base64.b64decode(value).decode() for key, value in values.items()}
        self._read[kind, name] = values
        return values

    def _value(self, variable: Mapping[str, Any]) -> str | None:
        source = variable.get("valueFrom")
        if source is None:
            return str(variable.get("value") or "")
        if "fieldRef" in source:
            fields: dict[str, str] = {
                "metadata.name": self.name,
                "metadata.namespace": self.namespace,
                "status.podIP": self.address,
                "spec.nodeName": self.manifest["spec"].get("nodeName", ""),
            }
            return fields.get(str(source["fieldRef"]["fieldPath"]), "")
        for kind, key in (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")):
            if key in source:
                reference = source[key]
                data = self.data(kind, str(reference["name"]), reference.get("optional", False))
                if reference["key"] not in data and not reference.get("optional"):
                    raise NotStartable(
                        "CreateContainerConfigError",
                        f"couldn't find key {reference['key']} in {kind} {self.namespace}/{reference['name']}",
                    )
                return data.get(str(reference["key"]))
        return ""  # resourceFieldRef: engines have the sandbox's small sizes


def _reference(source: Mapping[str, Any]) -> tuple[str, Mapping[str, Any] | None, str]:
    if "secret" in source:
        reference = source["secret"]
        return "Secret", reference, str(reference.get("secretName") or reference.get("name"))
    if "configMap" in source:
        return "ConfigMap", source["configMap"], str(source["configMap"]["name"])
    return "", None, ""
