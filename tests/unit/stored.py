"""A cluster's objects in a dictionary, with as much of its volume controller as claims and volumes need."""

from __future__ import annotations

import json
from base64 import b64encode
from copy import deepcopy
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from cluster.kube import Conflict, Kube, Manifest
from operations.environment.environment import Environment
from tests.environments import environment_with

NAMESPACE, CONTROL = "engines", "control"


class Stored(Kube):
    """Objects by kind and name; what is in use is left to the tests."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Manifest] = {}
        self.calls: list[str] = []

    def now(self) -> datetime:
        return datetime.now(UTC)

    def get(
        self, api_version: str, kind: str, name: str, namespace: str | None = None
    ) -> Manifest | None:
        return deepcopy(self.objects.get((kind, name)))

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, selector: str | None = None
    ) -> list[Manifest]:
        wanted = [part.partition("=") for part in (selector or "").split(",") if part]
        found = [one for (its, _), one in self.objects.items() if its == kind]
        return [
            deepcopy(one)
            for one in found
            if all(
                label in one["metadata"].get("labels", {})
                and (not sign or one["metadata"]["labels"][label] == value)
                for label, sign, value in wanted
            )
        ]

    def create(self, manifest: Manifest, **_: Any) -> Manifest:
        made = deepcopy(manifest)
        made["metadata"] = {"uid": f"uid-{len(self.calls)}", "resourceVersion": "1"} | made[
            "metadata"
        ]
        self._say("create", made["kind"], made["metadata"]["name"])
        self.objects[made["kind"], made["metadata"]["name"]] = made
        volume = made.get("spec", {}).get("volumeName")
        if volume:
            self.objects["PersistentVolume", volume]["status"] = {"phase": "Bound"}
        return made

    def apply(self, manifest: Manifest, **_: Any) -> Manifest:
        key = (manifest["kind"], manifest["metadata"]["name"])
        if key not in self.objects:
            return self.create({"spec": {}, **manifest})
        return deepcopy(self.objects[key])

    def replace(self, manifest: Manifest) -> Manifest:
        self.objects[manifest["kind"], manifest["metadata"]["name"]] = deepcopy(manifest)
        return manifest

    def patch(self, manifest: Manifest, change: dict[str, Any]) -> Manifest:
        key = (manifest["kind"], manifest["metadata"]["name"])
        self._say("patch", *key)
        self.objects[key] = _merged(self.objects[key], change)
        return self.objects[key]

    def delete(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str | None = None,
        uid: str | None = None,
    ) -> None:
        self._say("delete", kind, name)
        there = self.objects.get((kind, name))
        if there is not None and uid and there["metadata"]["uid"] != uid:
            raise Conflict(f"{kind} {name} has another uid")
        gone = self.objects.pop((kind, name), None)
        volume = (gone or {}).get("spec", {}).get("volumeName", "")
        held = self.objects.get(("PersistentVolume", volume))
        if held is not None:
            held["status"] = {"phase": "Released"}
            if held["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
                del self.objects["PersistentVolume", volume]

    def claim(self, name: str, volume: str, policy: str = "Delete") -> None:
        """A claim; with a volume of its own, if that has a name."""
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"volumeName": volume} if volume else {},
        }
        if volume:
            self.objects["PersistentVolume", volume] = {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": volume},
                "spec": {"persistentVolumeReclaimPolicy": policy},
            }
        self.create(claim)

    def helm_release(self, name: str, revision: int, status: str, *manifests: Manifest) -> None:
        """A revision of a release, as helm keeps it (`cluster.helm.records`)."""
        document = {
            "name": name,
            "version": revision,
            "info": {"status": status, "last_deployed": "2026-01-01T00:00:00+00:00"},
            "chart": {"metadata": {"name": name, "version": "1"}},
            "manifest": "\n---\n".join(json.dumps(one) for one in manifests),
        }
        text = b64encode(b64encode(json.dumps(document).encode())).decode()
        secret = f"sh.helm.release.v1.{name}.v{revision}"
        self.objects["Secret", secret] = {
            "metadata": {"name": secret, "labels": {"owner": "helm"}},
            "data": {"release": text},
        }

    @property
    def claims(self) -> dict[str, str]:
        """Name of each claim → its volume."""
        found = self.list("v1", "PersistentVolumeClaim")
        return {one["metadata"]["name"]: one["spec"].get("volumeName", "") for one in found}

    @property
    def volumes(self) -> dict[str, str]:
        """Name of each volume → its reclaim policy."""
        found = self.list("v1", "PersistentVolume")
        return {
            one["metadata"]["name"]: one["spec"]["persistentVolumeReclaimPolicy"] for one in found
        }

    def _say(self, verb: str, kind: str, name: str) -> None:
        self.calls.append(f"{verb} {kind} {name}")


def settings_of(**settings: Any) -> Any:
    """As many settings as these objects need, and some more."""
    return SimpleNamespace(
        kubernetes=SimpleNamespace(
            namespace=NAMESPACE, control_namespace=CONTROL, verify_namespace="proofs"
        ),
        deploy=SimpleNamespace(lease_seconds=30),
        schedules=SimpleNamespace(timezone="UTC"),
        rebuild=SimpleNamespace(keep_volumes_days=0),
        **settings,
    )


def environment_of(kube: Kube, **settings: Any) -> Environment:
    """As much of an environment as needs a cluster alone."""
    return environment_with(settings_of(**settings), kube=kube)


def _merged(value: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """JSON merge patch (RFC 7396)."""
    made = dict(value)
    for key, new in change.items():
        if new is None:
            made.pop(key, None)
        elif isinstance(new, dict):
            made[key] = _merged(made.get(key, {}), new)
        else:
            made[key] = new
    return made
