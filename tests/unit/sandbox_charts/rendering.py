"""Renders the releases with the stand-in charts, or with the archive of a real one."""

from __future__ import annotations

import functools
import json
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml import CSafeLoader

from cluster.helm.releases import Release, load_releases
from config.loading import ROOT, load
from config.models import COMPONENTS
from operations.environment.render import site_values
from sandbox.machine.binaries import KUBERNETES, ensure
from tests.contracts.shape import Manifest

CHARTS = ROOT / "deployments/kubernetes/sandbox/charts"
CONTRACTS = ROOT / "tests/contracts"
PRODUCTION = ROOT / "deployments/kubernetes/production/helm/helmfile.yaml"
SANDBOX = ROOT / "deployments/kubernetes/sandbox/helmfile.yaml"
# What charts ask the cluster for; helm does not know it without one.
API_VERSIONS = (
    "policy/v1/PodDisruptionBudget",
    "monitoring.coreos.com/v1",
    "monitoring.coreos.com/v1/ServiceMonitor",
)
# Chart → its releases in production.
RELEASES = {
    "postgresql-ha": ["postgresql-ha"],
    "redis-cluster": ["redis-cluster"],
    "nats": ["nats"],
    "minio": ["minio"],
    "qdrant": ["qdrant"],
    "neo4j-headless-service": ["neo4j-headless"],
    "neo4j": ["neo4j-1", "neo4j-2", "neo4j-3"],
    "emqx": ["emqx"],
}


def contract(chart: str) -> dict[str, Any]:
    """What the real chart accepts, and renders with production's values."""
    document: dict[str, Any] = json.loads((CONTRACTS / f"{chart}.json").read_text())
    return document


def releases(helmfile: Path) -> dict[str, Release]:
    """The releases of a helmfile by name."""
    return {release.name: release for release in load_releases(helmfile, COMPONENTS).releases}


def chart_of(release: Release) -> str:
    """Name of the chart, without repository or directory."""
    return release.chart.rpartition("/")[2]


@functools.cache
def production(name: str, archive: Path | None = None) -> tuple[Manifest, ...]:
    """Render a production release with the stand-in chart, where all three Neo4j members exist.

    The settings are the sandbox's, because production's images and classes are a site's.

    Args:
        archive: of the real chart, in place of the stand-in.
    """
    environ = {
        "ISA_PLATFORM__HELMFILE": str(PRODUCTION),
        "ISA_COMPONENTS__NEO4J__MEMBERS": "3",
        "ISA_COMPONENTS__NEO4J__EDITION": "enterprise",
        "ISA_LICENCES__NEO4J": "yes",
    }
    return _render(releases(PRODUCTION)[name], environ, archive)


@functools.cache
def sandbox(name: str) -> tuple[Manifest, ...]:
    """Render a release of the sandbox's helmfile as it is deployed there."""
    return _render(releases(SANDBOX)[name], {})


def template(
    chart: str | Path,
    *values: Mapping[str, Any] | Path,
    release: str = "release",
    api_versions: Iterable[str] = API_VERSIONS,
) -> tuple[Manifest, ...]:
    """Run `helm template` on a stand-in chart, or on the archive of a chart.

    Raises:
        RuntimeError: helm refused; with its message.
    """
    with tempfile.TemporaryDirectory() as directory:
        command = [str(_helm()), "template", release, str(CHARTS / chart)]
        command += ["--kube-version", KUBERNETES]
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
    return tuple(
        document for document in yaml.load_all(done.stdout, Loader=CSafeLoader) if document
    )


@functools.cache
def _helm() -> Path:
    return ensure(["helm"])["helm"]


def _render(
    release: Release, environ: Mapping[str, str], archive: Path | None = None
) -> tuple[Manifest, ...]:
    site = site_values(load("sandbox", environ)).get(release.name, {})
    return template(
        archive.resolve() if archive else chart_of(release),
        *release.values,
        site,
        release=release.name,
    )
