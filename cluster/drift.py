"""Compares what a manifest says with what is live, and names every field that differs.

A live object has more fields than its manifest (defaults, status), and the same quantity may be written otherwise
(`1000m`, `1`). So: first see whether the live object contains the manifest as it stands; only where it does not, let
the API server compute the object after the apply (dry run) and compare the two. The first step also spares the
right to write objects that are never written by this identity (RBAC).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cluster.kube import Kube, Manifest
from errors import PermanentError

# Another manager than the one that applies: an apply takes away what its own manager no longer names.
PLANNER = "isa-cloud-plan"
# Set by the server or by controllers; says nothing about what somebody wanted.
VOLATILE = {
    "managedFields",
    "resourceVersion",
    "generation",
    "uid",
    "creationTimestamp",
    "selfLink",
}


@dataclass(frozen=True)
class Difference:
    """One object that is not as its manifest says.

    Attributes:
        kind: `StatefulSet`.
        name: `postgresql-ha-postgresql`.
        fields: paths that differ, empty if the object is missing.
    """

    kind: str
    name: str
    fields: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}: " + (
            ", ".join(self.fields[:5]) if self.fields else "missing"
        )


def compare(
    kube: Kube, manifest: Manifest, *, namespace: str, manager: str = PLANNER
) -> Difference | None:
    """Compare one manifest with the live object.

    Args:
        kube: the cluster.
        manifest: what should be.
        namespace: for objects that do not name theirs.
        manager: field manager of the dry run.

    Returns:
        What differs, or None.
    """
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    wanted = with_namespace(kube, manifest, namespace)
    live = kube.get(manifest["apiVersion"], kind, name, wanted["metadata"].get("namespace"))
    if live is None:
        return Difference(kind, name, ())
    fields = list(_missing(wanted, live, ""))
    if not fields:
        return None
    try:
        after = kube.apply(wanted, manager=manager, dry_run=True)
    except PermanentError:
        return Difference(
            kind, name, tuple(fields)
        )  # immutable field or no right: the plain view must do
    fields = list(_different(_stable(after), _stable(live), ""))
    return Difference(kind, name, tuple(fields)) if fields else None


def with_namespace(kube: Kube, manifest: Manifest, namespace: str) -> Manifest:
    """Give a namespaced manifest that names no namespace the release's one, as helm does."""
    metadata = manifest["metadata"]
    if (
        metadata.get("namespace")
        or not kube.resource(manifest["apiVersion"], manifest["kind"]).namespaced
    ):
        return manifest
    return {**manifest, "metadata": {**metadata, "namespace": namespace}}


def same_objects(left: list[Manifest], right: list[Manifest]) -> list[str]:
    """Name the objects in which two renderings differ."""
    first, second = ({_key(m): m for m in manifests} for manifests in (left, right))
    return sorted(key for key in first.keys() | second.keys() if first.get(key) != second.get(key))


def _key(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def _missing(wanted: Any, live: Any, path: str) -> Iterator[str]:
    """Paths at which `live` does not contain `wanted`."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        for key, value in wanted.items():
            if value is None or value == {} or value == []:
                continue  # the server drops empty values
            yield from _missing(value, live.get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        for index, (one, other) in enumerate(zip(wanted, live, strict=True)):
            yield from _missing(one, other, f"{path}[{index}]")
    elif wanted != live:
        yield path


def _different(one: Any, other: Any, path: str) -> Iterator[str]:
    """Paths at which two objects differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from _different(one.get(key), other.get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from _different(left, right, f"{path}[{index}]")
    elif one != other:
        yield path


def _stable(manifest: Manifest) -> Manifest:
    metadata = {k: v for k, v in manifest.get("metadata", {}).items() if k not in VOLATILE}
    return {**{k: v for k, v in manifest.items() if k != "status"}, "metadata": metadata}
