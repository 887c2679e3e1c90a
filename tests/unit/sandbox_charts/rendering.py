"""Renders the releases with the stand-in charts; reads what came out in the contracts' terms."""

from __future__ import annotations

import functools
import json
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.releases import Release, load_releases
from config.loading import ROOT, load
from config.models import COMPONENTS
from deployments.sandbox.binaries import ensure
from operations.render import site_values

Manifest = dict[str, Any]

CHARTS = ROOT / "deployments/kubernetes/sandbox/charts"
CONTRACTS = ROOT / "tests/contracts"
PRODUCTION = ROOT / "deployments/kubernetes/production/helm/helmfile.yaml"
SANDBOX = ROOT / "deployments/kubernetes/sandbox/helmfile.yaml"
# Asked for by EMQX's chart; helm does not know it without a cluster.
API_VERSIONS = ("policy/v1/PodDisruptionBudget",)


def contract(chart: str) -> dict[str, Any]:
    """What the real chart rendered with the reference values."""
    document = json.loads((CONTRACTS / f"{chart}.json").read_text())
    rendered: dict[str, Any] = document["renderedWithReferenceValues"]
    return rendered


def contract_empties(chart: str) -> dict[str, dict[str, Any]]:
    """What the real chart rendered empty with production's values: object → path → value."""
    document = json.loads((CONTRACTS / f"{chart}.json").read_text())
    values: dict[str, dict[str, Any]] = document["emptyValues"]
    return values


def releases(helmfile: Path) -> dict[str, Release]:
    """The releases of a helmfile by name."""
    return {release.name: release for release in load_releases(helmfile, COMPONENTS).releases}


def chart_of(release: Release) -> str:
    """Name of the chart, without repository or directory."""
    return release.chart.rpartition("/")[2]


@functools.cache
def production(name: str) -> tuple[Manifest, ...]:
    """Render a production release with the stand-in chart, where all three Neo4j members exist.

    The settings are the sandbox's, because production's images and classes are a site's.
    """
    environ = {
        "ISA_PLATFORM__HELMFILE": str(PRODUCTION),
        "ISA_COMPONENTS__NEO4J__MEMBERS": "3",
        "ISA_COMPONENTS__NEO4J__EDITION": "enterprise",
    }
    return _render(releases(PRODUCTION)[name], environ)


@functools.cache
def sandbox(name: str) -> tuple[Manifest, ...]:
    """Render a release of the sandbox's helmfile as it is deployed there."""
    return _render(releases(SANDBOX)[name], {})


def template(
    chart: str,
    *values: Mapping[str, Any] | Path,
    release: str = "release",
    api_versions: Iterable[str] = API_VERSIONS,
) -> tuple[Manifest, ...]:
    """Run `helm template` on a stand-in chart.

    Raises:
        RuntimeError: helm refused; with its message.
    """
    with tempfile.TemporaryDirectory() as directory:
        command = [str(_helm()), "template", release, str(CHARTS / chart)]
        command += ["--namespace", "isa-cloud-production"]
        command += [f"--api-versions={version}" for version in api_versions]
        for index, value in enumerate(values):
            if not isinstance(value, Path):
                file = Path(directory) / f"{index}.yaml"
                file.write_text(yaml.safe_dump(dict(value)))
                value = file
            command += ["--values", str(value)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return tuple(document for document in yaml.safe_load_all(done.stdout) if document)


@functools.cache
def _helm() -> Path:
    return ensure(["helm"])["helm"]


def _render(release: Release, environ: Mapping[str, str]) -> tuple[Manifest, ...]:
    site = site_values(load("sandbox", environ)).get(release.name, {})
    return template(chart_of(release), *release.values, site, release=release.name)


def empty_values(documents: Iterable[Manifest]) -> dict[str, dict[str, Any]]:
    """Every null, false, empty text, map and list of a rendering: object → path → value.

    Items of a list go by their `name`, or by their place where they have none.
    """
    found: dict[str, dict[str, Any]] = {}
    for document in documents:
        empty = dict(_empty(document, ""))
        if empty:
            found[f"{document['kind']}/{document['metadata']['name']}"] = empty
    return found


def _empty(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if value is None or value is False or value in ("", {}, []):
        yield path, value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _empty(entry, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            name = entry.get("name", index) if isinstance(entry, dict) else index
            yield from _empty(entry, f"{path}[{name}]")


def of_kind(documents: Iterable[Manifest], *kinds: str) -> list[Manifest]:
    """The documents of these kinds."""
    return [document for document in documents if document["kind"] in kinds]


def workloads(documents: Iterable[Manifest]) -> list[Manifest]:
    """The documents that make pods which stay."""
    return of_kind(documents, "Deployment", "StatefulSet")


def observed(documents: Iterable[Manifest]) -> dict[str, Any]:
    """What a rendering contains, in the shape of a contract."""
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
