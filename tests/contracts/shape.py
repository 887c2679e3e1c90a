"""The terms of a contract: what a chart renders and which values it knows, without a copy of its text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Manifest = dict[str, Any]
# Object (kind/name) → path of a field → types of its value.
Paths = dict[str, dict[str, str]]

# What identifies an item of a list, as in Kubernetes' own merge keys. Items without any are taken together.
IDENTIFIERS = ("mountPath", "name", "topologyKey", "key")
KIND_NAMES = {dict: "map", list: "list", str: "string", bool: "bool", int: "int", float: "float"}
# Stands for the name of the release in charts that have more than one.
RELEASE = "{release}"


def type_name(value: Any) -> str:
    """Type of a value as contracts write it."""
    return "null" if value is None else KIND_NAMES[type(value)]


def value_keys(values: Mapping[str, Any], under: str = "") -> dict[str, str]:
    """Every key of a chart's values.yaml with the type of its default."""
    keys: dict[str, str] = {}
    for key, value in values.items():
        path = f"{under}{key}"
        if isinstance(value, Mapping) and value:
            keys |= value_keys(value, f"{path}.")
        else:
            keys[path] = type_name(value)
    return keys


def field_paths(releases: Mapping[str, Iterable[Manifest]]) -> Paths:
    """Every field of a rendering, as the path to it and the types of its value.

    Only the ends of paths are listed. Empty values stand as they are: null, false, "", {} and [].
    Several types of one field are joined by " | ".

    Args:
        releases: release → its rendering. Names of several releases of a chart become `RELEASE`.
    """
    types: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for release, documents in releases.items():
        for document in documents:
            name = f"{document['kind']}/{document['metadata']['name']}"
            for path, kind in _fields(document, ""):
                if len(releases) > 1:
                    name, path = (text.replace(release, RELEASE) for text in (name, path))
                types[name][path].add(kind)
    return {
        name: {path: " | ".join(sorted(kinds)) for path, kinds in sorted(fields.items())}
        for name, fields in sorted(types.items())
    }


def _fields(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, entry in value.items():
            yield from _fields(entry, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for item in value:
            yield from _fields(item, f"{path}[{_identifier(item)}]")
    elif isinstance(value, dict | list):
        yield path, "{}" if isinstance(value, dict) else "[]"
    elif value is False:
        yield path, "false"
    else:
        yield path, '""' if value == "" else type_name(value)


def _identifier(item: Any) -> str:
    if not isinstance(item, dict):
        return ""
    fields = {**item.get("metadata", {}), **item}  # claim templates have their name in `metadata`
    known = [fields[key] for key in IDENTIFIERS if key in fields]
    return str(known[0]) if known else ""


def of_kind(documents: Iterable[Manifest], *kinds: str) -> list[Manifest]:
    """The documents of these kinds."""
    return [document for document in documents if document["kind"] in kinds]


def workloads(documents: Iterable[Manifest]) -> list[Manifest]:
    """The documents that make pods which stay."""
    return of_kind(documents, "Deployment", "StatefulSet")


def summary(documents: Iterable[Manifest]) -> dict[str, Any]:
    """Names, labels, ports and claims of a rendering, with their values."""
    documents = list(documents)
    known = ("Deployment", "StatefulSet", "Service", "PodDisruptionBudget")
    return {
        "workloads": [_workload(document) for document in workloads(documents)],
        "services": [_service(document) for document in of_kind(documents, "Service")],
        "podDisruptionBudgets": [
            {"name": document["metadata"]["name"], "spec": document["spec"]}
            for document in of_kind(documents, "PodDisruptionBudget")
        ],
        "otherObjects": [
            f"{document['kind']}/{document['metadata']['name']}"
            for document in documents
            if document["kind"] not in known
        ],
    }


def _workload(document: Manifest) -> dict[str, Any]:
    spec = document["spec"]
    return {
        "kind": document["kind"],
        "name": document["metadata"]["name"],
        "replicas": spec["replicas"],
        "serviceName": spec.get("serviceName"),
        "podManagementPolicy": spec.get("podManagementPolicy"),
        "matchLabels": spec["selector"]["matchLabels"],
        "podLabels": spec["template"]["metadata"]["labels"],
        "containers": [
            {
                "name": container["name"],
                "ports": [
                    {"name": port["name"], "port": port["containerPort"]}
                    for port in container.get("ports", [])
                ],
            }
            for container in spec["template"]["spec"]["containers"]
        ],
        "volumeClaims": [
            claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])
        ],
    }


def _service(document: Manifest) -> dict[str, Any]:
    spec = document["spec"]
    return {
        "name": document["metadata"]["name"],
        "headless": spec.get("clusterIP") == "None",
        "publishNotReadyAddresses": spec.get("publishNotReadyAddresses", False),
        "selector": spec["selector"],
        "ports": [
            {"name": port["name"], "port": port["port"], "targetPort": port["targetPort"]}
            for port in spec["ports"]
        ],
    }
