"""The stand-in charts render what the real ones do (tests/contracts), from production's values."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.contracts.shape import field_paths, of_kind, summary

from .rendering import (
    CHARTS,
    CONTRACTS,
    PRODUCTION,
    RELEASES,
    chart_of,
    contract,
    production,
    releases,
    sandbox,
)
from .reviewed import DIFFERENT_FIELDS, OTHER_VERSIONS

Contract = dict[str, Any]


def internals_have_an_address(expected: Contract) -> None:
    """Headless in 5.17, which the contract shows; ClusterIP since https://github.com/neo4j/helm-charts/pull/332."""
    for service in expected["services"]:
        if service["name"].endswith("-internals"):
            service["headless"] = False


DIFFERENCES: dict[str, list[Callable[[Contract], None]]] = {"neo4j": [internals_have_an_address]}


@pytest.mark.parametrize("name", [name for names in RELEASES.values() for name in names])
def test_no_release_brings_a_network_policy(name: str) -> None:
    assert not [m for m in production(name) if m["kind"] == "NetworkPolicy"]


def unordered(contract: Contract) -> Contract:
    """The same without the order of its lists."""
    result = copy.deepcopy(contract)
    for workload in result["workloads"]:
        workload["volumeClaims"].sort()
        for container in workload["containers"]:
            container["ports"].sort(key=lambda port: str(port["name"]))
    for service in result["services"]:
        service["ports"].sort(key=lambda port: str(port["name"]))
    for part in ("workloads", "services", "podDisruptionBudgets"):
        result[part].sort(key=lambda entry: str(entry["name"]))
    result["otherObjects"].sort()
    return result


def expected(chart: str) -> Contract:
    wanted: Contract = contract(chart)["rendered"]
    for difference in DIFFERENCES.get(chart, []):
        before = copy.deepcopy(wanted)
        difference(wanted)
        assert wanted != before, f"{difference.__name__} is no difference any more"
    return wanted


def test_every_chart_has_a_contract() -> None:
    assert set(RELEASES) == {path.name for path in CHARTS.iterdir()}
    assert set(RELEASES) <= {path.stem for path in CONTRACTS.glob("*.json")}


@pytest.mark.parametrize("part", ["workloads", "services", "podDisruptionBudgets", "otherObjects"])
@pytest.mark.parametrize("chart", RELEASES)
def test_renders_what_the_real_chart_renders(chart: str, part: str) -> None:
    documents = [document for name in RELEASES[chart] for document in production(name)]

    assert unordered(summary(documents))[part] == unordered(expected(chart))[part]


def path_differences(chart: str) -> list[str]:
    """Fields that only one of the renderings has, or has with another type."""
    real = contract(chart)["paths"]
    ours = field_paths({name: production(name) for name in RELEASES[chart]})
    return [
        f"{name} {path}: real {real.get(name, {}).get(path)}, stand-in {ours.get(name, {}).get(path)}"
        for name in sorted(real.keys() | ours.keys())
        for path in sorted(real.get(name, {}).keys() | ours.get(name, {}).keys())
        if real.get(name, {}).get(path) != ours.get(name, {}).get(path)
    ]


@pytest.mark.parametrize("chart", RELEASES)
def test_renders_every_field_of_the_real_chart_with_its_type_and_no_other(chart: str) -> None:
    assert path_differences(chart) == sorted(DIFFERENT_FIELDS.get(chart, {}))


@pytest.mark.parametrize("chart", RELEASES)
def test_the_contract_is_of_the_version_that_production_pins(chart: str) -> None:
    pinned = {r.version for r in releases(PRODUCTION).values() if chart_of(r) == chart}

    recorded, _reason = OTHER_VERSIONS.get(chart, (None, ""))
    assert (recorded is None) == ({contract(chart)["version"]} == pinned)
    assert recorded in (None, contract(chart)["version"])


def test_the_nulls_that_once_broke_every_plan_are_in_the_contracts() -> None:
    nulls = {
        path.rpartition(".")[2]
        for chart in RELEASES
        for fields in contract(chart)["paths"].values()
        for path, kind in fields.items()
        if kind == "null"
    }
    assert {"initContainers", "envFrom", "annotations", "subPath", "nodePort", "volumes"} <= nulls


@pytest.mark.parametrize("release", [names[0] for names in RELEASES.values() if len(names) == 1])
def test_the_sandbox_deploys_the_same_objects_as_production(release: str) -> None:
    assert sandbox(release) == production(release)


def test_a_single_community_member_has_no_cluster_parts() -> None:
    member = summary(sandbox("neo4j-1"))
    (workload,) = member["workloads"]

    assert [service["name"] for service in member["services"]] == ["neo4j-1-admin", "neo4j-1"]
    assert workload["podLabels"]["helm.neo4j.com/clustering"] == "false"
    assert [port["name"] for port in workload["containers"][0]["ports"]] == ["http", "bolt"]
    assert {name.split("/")[0] for name in member["otherObjects"]} == {"ConfigMap"}
    (statefulset,) = of_kind(sandbox("neo4j-1"), "StatefulSet")
    assert (
        statefulset["spec"]["template"]["spec"]["containers"][0]["image"]
        == "docker.io/library/neo4j:5.26.30"
    )
