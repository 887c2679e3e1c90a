"""The stand-in charts render what the real ones do (tests/contracts), from production's values."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from .rendering import (
    CHARTS,
    CONTRACTS,
    contract,
    contract_empties,
    empty_values,
    observed,
    of_kind,
    production,
    sandbox,
)

Contract = dict[str, Any]

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


def initial_configuration_is_set(expected: Contract) -> None:
    """Production sets extendedConf and initdbScripts: a ConfigMap each."""
    expected["otherObjects"] += [
        "ConfigMap/postgresql-ha-postgresql-extended-configuration",
        "ConfigMap/postgresql-ha-postgresql-initdb-scripts",
    ]


def own_policies_are_off(expected: Contract) -> None:
    """Production has network policies of its own (namespace.yaml), the reference values had the charts'."""
    expected["otherObjects"] = [
        one for one in expected["otherObjects"] if not one.startswith("NetworkPolicy/")
    ]


def chart_is_13_0_4(expected: Contract) -> None:
    """The contract was rendered from 13.0.5 in git, which was never published."""
    labels = expected["workloads"][0]["podLabels"]
    labels["helm.sh/chart"] = "redis-cluster-13.0.4"


def no_snapshot_volume(expected: Contract) -> None:
    """Production leaves Qdrant's snapshot volume off, the reference values had it on."""
    expected["workloads"][0]["volumeClaims"].remove("qdrant-snapshots")


def internals_have_an_address(expected: Contract) -> None:
    """Headless in 5.17, which the contract shows; ClusterIP since https://github.com/neo4j/helm-charts/pull/332."""
    for service in expected["services"]:
        if service["name"].endswith("-internals"):
            service["headless"] = False


DIFFERENCES: dict[str, list[Callable[[Contract], None]]] = {
    "postgresql-ha": [initial_configuration_is_set, own_policies_are_off],
    "redis-cluster": [chart_is_13_0_4, own_policies_are_off],
    "qdrant": [no_snapshot_volume],
    "neo4j": [internals_have_an_address],
}


@pytest.mark.parametrize("name", [name for names in RELEASES.values() for name in names])
def test_no_release_brings_a_network_policy(name: str) -> None:
    assert not [m for m in production(name) if m["kind"] == "NetworkPolicy"]


def comparable(found: Contract, wanted: Contract) -> Contract:
    """Without order, and of the pods' labels only those that the contract names."""
    result = copy.deepcopy(found)
    labels = {workload["name"]: workload["podLabels"] for workload in wanted["workloads"]}
    for workload in result["workloads"]:
        known = labels.get(workload["name"], {})
        workload["podLabels"] = {
            key: value for key, value in workload["podLabels"].items() if key in known
        }
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
    wanted = contract(chart)
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
    wanted = expected(chart)

    assert comparable(observed(documents), wanted)[part] == comparable(wanted, wanted)[part]


@pytest.mark.parametrize("chart", RELEASES)
def test_renders_every_null_and_empty_value_of_the_real_rendering(chart: str) -> None:
    rendered = empty_values(document for name in RELEASES[chart] for document in production(name))
    lacking = [
        f"{manifest}: {path}: {value!r}"
        for manifest, values in contract_empties(chart).items()
        for path, value in values.items()
        if rendered.get(manifest, {}).get(path, "absent") != value
    ]
    assert lacking == []


def test_the_nulls_that_once_broke_every_plan_are_in_the_contracts() -> None:
    nulls = {
        path.rpartition(".")[2]
        for chart in RELEASES
        for values in contract_empties(chart).values()
        for path, value in values.items()
        if value is None
    }
    assert {"initContainers", "envFrom", "annotations", "subPath", "nodePort", "volumes"} <= nulls


@pytest.mark.parametrize("release", [names[0] for names in RELEASES.values() if len(names) == 1])
def test_the_sandbox_deploys_the_same_objects_as_production(release: str) -> None:
    assert sandbox(release) == production(release)


def test_a_single_community_member_has_no_cluster_parts() -> None:
    member = observed(sandbox("neo4j-1"))
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
