"""The production tree as its readers see it: releases with merged values, contracts, manifests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from yaml import CSafeLoader

from cluster.helm.releases import Release, load_releases
from config.models import COMPONENTS, ImageSettings, Settings
from operations.environment.render import render_manifest, site_values

ROOT = Path(__file__).resolve().parents[3]
PRODUCTION = ROOT / "deployments" / "kubernetes" / "production"
CONTRACTS = ROOT / "tests" / "contracts"

# What production.yaml leaves to the site.
SITE: dict[str, Any] = {
    "storage": {
        "block": {"provisioner": "block.example.com", "parameters": {"pool": "one"}},
        "nfs": {"server": "nfs.example.com", "share": "/export"},
        "object": {"endpoint": "https://s3.example.com:8443", "bucket": "isa-backups"},
    },
    "licences": {"neo4j": "yes", "emqx": "apache"},
    "images": {
        name: f"registry.example.com/isa/{name}:1.2.3" for name in ImageSettings.model_fields
    },
    "autoscaling": {"services": [{"deployment": "orders"}, {"deployment": "search"}]},
    "backup": {"age_recipients": ["age1" + "q" * 58, "age1" + "p" * 58]},
}


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge maps as Helm merges values: maps key by key, all else is replaced."""
    merged = dict(under)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = (
            merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
        )
    return merged


def contract(release: Release) -> dict[str, Any]:
    """What the chart of a release is known to accept and to render."""
    chart = release.chart.rsplit("/", 1)[-1]
    document: dict[str, Any] = json.loads((CONTRACTS / f"{chart}.json").read_text())
    return document


@pytest.fixture(scope="session")
def settings() -> Settings:
    document = yaml.load(
        (ROOT / "config/environments/production.yaml").read_text(), Loader=CSafeLoader
    )
    loaded = Settings.model_validate(merge(document, SITE))
    paths = {key: ROOT / path for key, path in loaded.platform}
    return loaded.model_copy(update={"platform": loaded.platform.model_copy(update=paths)})


@pytest.fixture(scope="session")
def releases() -> dict[str, Release]:
    return {
        r.name: r for r in load_releases(PRODUCTION / "helm" / "helmfile.yaml", COMPONENTS).releases
    }


@pytest.fixture(scope="session")
def values(releases: dict[str, Release], settings: Settings) -> dict[str, dict[str, Any]]:
    """Release → values as Helm gets them, the site's last."""
    site = site_values(settings)
    merged: dict[str, dict[str, Any]] = {}
    for name, release in releases.items():
        result: dict[str, Any] = {}
        for entry in release.values:
            result = merge(
                result,
                yaml.load(entry.read_text(), Loader=CSafeLoader)
                if isinstance(entry, Path)
                else entry,
            )
        merged[name] = merge(result, site.get(name, {}))
    return merged


@pytest.fixture(scope="session")
def manifests(settings: Settings) -> list[dict[str, Any]]:
    """Everything that is applied before the releases."""
    platform = settings.platform
    return render_manifest(platform.storage_manifest, settings) + render_manifest(
        platform.namespace_manifest, settings
    )


@pytest.fixture(scope="session")
def pod_labels(releases: dict[str, Release]) -> list[dict[str, str]]:
    """Labels of every engine pod that the charts render, one entry a workload."""
    workloads: dict[str, dict[str, str]] = {}
    for release in releases.values():
        for workload in contract(release)["rendered"]["workloads"]:
            workloads[workload["name"]] = workload["podLabels"]
    return list(workloads.values())
