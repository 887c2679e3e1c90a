"""Reads manifests: YAML streams of helm into objects, checked as far as the readers of this project go into them.

A key without a value equals an absent key: the API server drops nulls, and real charts render them (`initContainers:`
of Qdrant, `envFrom:` of PostgreSQL's exporter). So nulls are dropped where a manifest is parsed, and again where an
answer of the API server is; no reader has to think of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import yaml
from kubernetes.utils.quantity import parse_quantity

from config.text.documents import FastLoader

Manifest = dict[str, Any]
# A type; a map that says which keys ("*": all) must have which shape if they are there; [X], a list of X.
Shape = Any
QUANTITY = "quantity"
_TEXTS: Shape = {"*": str}
_QUANTITIES: Shape = {"*": QUANTITY}

_REFERENCES: Shape = [{"name": str}]
_CONTAINER: Shape = {
    "name": str,
    "image": str,
    "env": [{"name": str, "valueFrom": {"secretKeyRef": {"name": str, "key": str}}}],
    "envFrom": [{"secretRef": {"name": str}, "configMapRef": {"name": str}}],
    "ports": [dict],
    "resources": {"requests": _QUANTITIES, "limits": _QUANTITIES},
    "volumeMounts": [dict],
}
_POD: Shape = {
    "containers": [_CONTAINER],
    "initContainers": [_CONTAINER],
    "volumes": [{"name": str, "secret": {"items": [dict]}, "projected": {"sources": [dict]}}],
    "imagePullSecrets": _REFERENCES,
    "affinity": {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"labelSelector": {"matchLabels": dict, "matchExpressions": [dict]}}
            ]
        }
    },
}
_CLAIM: Shape = {
    "metadata": {"name": str},
    "spec": {"storageClassName": str, "resources": {"requests": _QUANTITIES}},
}
_OBJECT: Shape = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str, "namespace": str, "labels": _TEXTS, "annotations": _TEXTS},
}
_WORKLOAD: Shape = {
    "spec": {
        "replicas": int,
        "template": {"metadata": {"labels": _TEXTS, "annotations": _TEXTS}, "spec": _POD},
        "volumeClaimTemplates": [_CLAIM],
    }
}
_SHAPES: dict[str, Shape] = {
    "Deployment": _WORKLOAD,
    "StatefulSet": _WORKLOAD,
    "DaemonSet": _WORKLOAD,
    "Job": _WORKLOAD,
    "ConfigMap": {"data": _TEXTS, "binaryData": _TEXTS},
    "Secret": {"data": _TEXTS, "stringData": _TEXTS},
}
_REQUIRED = ("apiVersion", "kind", "metadata.name")
_REQUIRED_OF_A_WORKLOAD = ("spec.template.spec.containers",)
_REQUIRED_OF_A_CLAIM = ("metadata.name", "spec.resources.requests.storage")
_NAMES = {
    dict: "a map",
    list: "a list",
    str: "text",
    int: "a number",
    bool: "true or false",
    type(None): "null",
}


def parse_manifests(text: str) -> list[Manifest]:
    """Split helm's YAML stream into objects, `List` objects taken apart, keys without a value left out.

    Documents that are not objects are kept: `faults_of` names them.
    """
    manifests: list[Manifest] = []
    for document in filter(None, map(without_nulls, yaml.load_all(text, Loader=FastLoader))):
        is_list = isinstance(document, dict) and str(document.get("kind")).endswith("List")
        manifests += document.get("items", []) if is_list else [document]
    return manifests


def without_nulls(value: Any) -> Any:
    """Drop keys without a value, at every depth; an item of a list keeps its place."""
    if isinstance(value, dict):
        return {key: without_nulls(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [without_nulls(entry) for entry in value]
    return value


def faults_of(manifest: Any) -> list[str]:
    """Return why a document is not a valid Kubernetes object; [] if it is."""
    if not isinstance(manifest, dict):
        return [f"a document is {_type(manifest)}, not an object"]
    faults = list(_misshapen(manifest, _OBJECT, ""))
    if not faults:
        faults = _absent(manifest, _REQUIRED)
        shape = _SHAPES.get(str(manifest.get("kind")), {})
        faults += _misshapen(manifest, shape, "")
        if not faults and shape is _WORKLOAD:
            faults += _absent(manifest, _REQUIRED_OF_A_WORKLOAD)
            for index, claim in enumerate(_at(manifest, "spec.volumeClaimTemplates") or ()):
                where = f"spec.volumeClaimTemplates[{index}]."
                faults += _absent(claim, _REQUIRED_OF_A_CLAIM, where)
    what = f"{manifest.get('kind', 'an object')}/{_at(manifest, 'metadata.name')}"
    return [f"{what}: {fault}" for fault in faults]


def _misshapen(value: Any, shape: Shape, path: str) -> Iterator[str]:
    if shape == QUANTITY:
        yield from [] if _is_quantity(value) else [f"{path} is {value!r}, which is not a quantity"]
        return
    expected: Any = shape if isinstance(shape, type) else type(shape)
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        yield f"{path} is {_type(value)}, must be {_NAMES[expected]}"
    elif isinstance(shape, dict):
        for key in value:
            below = shape.get(key, shape.get("*"))
            if below is not None:
                yield from _misshapen(value[key], below, f"{path}.{key}".lstrip("."))
    elif isinstance(shape, list):
        for index, item in enumerate(value):
            yield from _misshapen(item, shape[0], f"{path}[{index}]")


def _is_quantity(value: Any) -> bool:
    try:
        parse_quantity(str(value))
    except ValueError:
        return False
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _absent(value: Any, paths: Iterable[str], where: str = "") -> list[str]:
    return [f"{where}{path} is missing" for path in paths if _at(value, path) is None]


def _at(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _type(value: Any) -> str:
    return next((name for kind, name in _NAMES.items() if type(value) is kind), repr(value))
