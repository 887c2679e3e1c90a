"""Anti-affinity, spread, budgets, policies and monitors select the pods that they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from cluster.helm.releases import Release
from config.models import Settings
from operations.environment.render import render_manifest
from operations.verify.scratch_pod import FETCHES

from .conftest import contract

# Release → where its values keep the affinity; Bitnami's and Neo4j's charts build it themselves.
AFFINITY = {
    "nats": "podTemplate.merge.spec.affinity",
    "minio": "affinity",
    "qdrant": "affinity",
    "emqx": "affinity",
}
SWITCHES: dict[str, list[tuple[str, Any]]] = {
    "postgresql-ha": [
        ("postgresql.podAntiAffinityPreset", "hard"),
        ("pgpool.podAntiAffinityPreset", "hard"),
    ],
    "redis-cluster": [("redis.podAntiAffinityPreset", "hard")],
    "neo4j-1": [("podSpec.podAntiAffinity", True)],
}
BUDGETS = {
    "postgresql-ha": ["postgresql.pdb.maxUnavailable", "pgpool.pdb.maxUnavailable"],
    "redis-cluster": ["pdb.maxUnavailable"],
    "minio": ["podDisruptionBudget.maxUnavailable"],
    "qdrant": ["podDisruptionBudget.maxUnavailable"],
    "emqx": ["pdb.maxUnavailable"],
}
CLIENT = {"isa-cloud.io/client": "true"}
FETCHING = {FETCHES: "true"}


def at(values: Any, path: str) -> Any:
    for part in path.split("."):
        values = values[part]
    return values


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


def own_pods(release: Release) -> list[dict[str, str]]:
    return [w["podLabels"] for w in contract(release)["rendered"]["workloads"]]


def found(value: Any, key: str) -> Iterator[Any]:
    """All entries of a name, at any depth."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            if name == key:
                yield entry
            yield from found(entry, key)
    elif isinstance(value, list):
        for entry in value:
            yield from found(entry, key)


@pytest.mark.parametrize("name", AFFINITY)
def test_members_refuse_a_common_node_whatever_the_release_is_called(
    name: str, values: dict[str, dict[str, Any]], releases: dict[str, Release]
) -> None:
    (term,) = at(values[name], AFFINITY[name])["podAntiAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    selector = term["labelSelector"]["matchLabels"]
    assert all(matches(selector, labels) for labels in own_pods(releases[name]))
    assert not {"app.kubernetes.io/instance", "release"} & set(selector), (
        "must not depend on the release's name"
    )


@pytest.mark.parametrize("name", SWITCHES)
def test_charts_that_build_the_anti_affinity_are_told_to_require_it(
    name: str, values: dict[str, dict[str, Any]]
) -> None:
    for path, wanted in SWITCHES[name]:
        assert at(values[name], path) == wanted, path


def test_spread_over_zones_selects_pods_of_the_release(
    values: dict[str, dict[str, Any]], releases: dict[str, Release]
) -> None:
    for name in set(values) - {"neo4j-headless"}:
        spreads = list(found(values[name], "topologySpreadConstraints"))
        assert spreads, f"{name} is not spread over zones"
        if name == "nats":  # its chart wants a map by topology key and adds the selector itself
            assert list(spreads[0]) == ["topology.kubernetes.io/zone"]
            continue
        for constraint in [entry for spread in spreads for entry in spread]:
            assert constraint["topologyKey"] == "topology.kubernetes.io/zone"
            selector = constraint.get("labelSelector", {}).get("matchLabels", {})
            assert any(matches(selector, labels) for labels in own_pods(releases[name])), (
                name,
                selector,
            )


@pytest.mark.parametrize("name", BUDGETS)
def test_budgets_let_exactly_one_member_out(name: str, values: dict[str, dict[str, Any]]) -> None:
    for path in BUDGETS[name]:
        assert at(values[name], path) == 1
        switches = at(values[name], path.rsplit(".", 1)[0])
        assert switches.get("enabled", switches.get("create")) is True


def test_one_budget_covers_the_three_neo4j_members(
    values: dict[str, dict[str, Any]], manifests: list[dict[str, Any]], releases: dict[str, Release]
) -> None:
    (budget,) = [m for m in manifests if m["kind"] == "PodDisruptionBudget"]
    covered = [
        p
        for p in own_pods(releases["neo4j-1"])
        if matches(budget["spec"]["selector"]["matchLabels"], p)
    ]
    assert len(covered) == 3
    assert budget["spec"]["minAvailable"] == len(covered) - 1
    assert values["neo4j-1"]["podDisruptionBudget"]["enabled"] is False, (
        "two budgets on a pod block its eviction"
    )


def test_every_selector_of_the_manifests_selects_something(
    manifests: list[dict[str, Any]], pod_labels: list[dict[str, str]]
) -> None:
    for manifest in manifests:
        if manifest["kind"] in ("NetworkPolicy", "PodDisruptionBudget", "PodMonitor"):
            name = f"{manifest['kind']}/{manifest['metadata']['name']}"
            for selector in [
                *found(manifest["spec"], "podSelector"),
                *found(manifest["spec"], "selector"),
            ]:
                labels = selector.get("matchLabels", {})
                if labels and labels not in (CLIENT, FETCHING):
                    assert any(matches(labels, pod) for pod in pod_labels), (name, labels)


def engine_policies(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        m
        for m in manifests
        if m["kind"] == "NetworkPolicy"
        and m["metadata"]["namespace"] == "isa-cloud-production"
        and m["spec"]["podSelector"].get("matchLabels", CLIENT) != CLIENT
    ]


def test_every_engine_pod_has_exactly_one_policy_of_its_own(
    manifests: list[dict[str, Any]], pod_labels: list[dict[str, str]]
) -> None:
    for labels in pod_labels:
        selectors = [p["spec"]["podSelector"]["matchLabels"] for p in engine_policies(manifests)]
        assert sum(matches(selector, labels) for selector in selectors) == 1, labels


def test_policies_open_only_ports_that_the_engine_has(
    manifests: list[dict[str, Any]], releases: dict[str, Release]
) -> None:
    for policy in engine_policies(manifests):
        selector = policy["spec"]["podSelector"]["matchLabels"]
        known: set[int] = set()
        for release in releases.values():
            rendered = contract(release)["rendered"]
            selected = [w for w in rendered["workloads"] if matches(selector, w["podLabels"])]
            known |= {p["port"] for w in selected for c in w["containers"] for p in c["ports"]}
            known |= {p["port"] for s in rendered["services"] for p in s["ports"] if selected}
        opened = {p["port"] for rule in policy["spec"]["ingress"] for p in rule["ports"]}
        assert opened <= known, (policy["metadata"]["name"], opened - known)


def test_members_reach_each_other_on_every_port_that_they_may_be_reached_on_by_members(
    manifests: list[dict[str, Any]],
) -> None:
    for policy in engine_policies(manifests):
        spec = policy["spec"]
        own = [{"podSelector": spec["podSelector"]}]
        into = [rule["ports"] for rule in spec["ingress"] if rule["from"] == own]
        out = [rule["ports"] for rule in spec["egress"] if rule.get("to") == own]
        assert into == out, policy["metadata"]["name"]


def test_a_namespace_denies_first(manifests: list[dict[str, Any]]) -> None:
    for namespace in ("isa-cloud-production", "isa-cloud-control", "isa-cloud-verify"):
        (deny,) = [
            m
            for m in manifests
            if m["metadata"]["name"] == "default-deny"
            and m["metadata"].get("namespace") == namespace
        ]
        assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_charts_bring_no_policies_of_their_own(values: dict[str, dict[str, Any]]) -> None:
    policies = [p for release in values.values() for p in found(release, "networkPolicy")]
    assert (
        policies == [{"enabled": False}] * 3
    )  # PostgreSQL, Pgpool, Redis: the others have it off by default


def test_metrics_of_every_engine_are_scraped_once(
    values: dict[str, dict[str, Any]], manifests: list[dict[str, Any]]
) -> None:
    for path in (
        "postgresql-ha.metrics.serviceMonitor",
        "redis-cluster.metrics.serviceMonitor",
        "nats.promExporter.podMonitor",
        "minio.metrics.serviceMonitor",
        "qdrant.metrics.serviceMonitor",
        "neo4j-1.serviceMonitor",
    ):
        assert at(values, path)["enabled"] is True, path
    for member in ("neo4j-1", "neo4j-2", "neo4j-3"):
        assert (
            values[member]["serviceMonitor"]["selector"]["matchLabels"]["helm.neo4j.com/instance"]
            == member
        )
    assert values["emqx"]["metrics"]["enabled"] is False
    assert [m["metadata"]["name"] for m in manifests if m["kind"] == "PodMonitor"] == ["emqx"]


def pushgateway_policies(settings: Settings, url: str | None) -> list[dict[str, Any]]:
    verify = settings.verify.model_copy(update={"pushgateway": url})
    manifests = render_manifest(
        settings.platform.namespace_manifest, settings.model_copy(update={"verify": verify})
    )
    return [m for m in manifests if m["metadata"]["name"] == "pushgateway"]


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://pushgateway.monitoring:9091", 9091),
        ("https://push.example.com/prometheus", 443),
        ("http://push.example.com", 80),
    ],
)
def test_the_control_namespace_reaches_the_pushgateway_where_there_is_one(
    url: str, port: int, settings: Settings
) -> None:
    (policy,) = pushgateway_policies(settings, url)
    assert policy["metadata"]["namespace"] == "isa-cloud-control"
    assert policy["spec"]["egress"] == [{"ports": [{"port": port}]}]
    assert pushgateway_policies(settings, None) == []


def test_workers_and_scratch_pods_reach_the_object_store_wherever_it_listens(
    manifests: list[dict[str, Any]], settings: Settings
) -> None:
    port = settings.storage.object.port
    for namespace in ("isa-cloud-control", "isa-cloud-verify"):
        opened = {
            entry["port"]
            for m in manifests
            if m["kind"] == "NetworkPolicy" and m["metadata"]["namespace"] == namespace
            for rule in m["spec"].get("egress", ())
            for entry in rule.get("ports", ())
        }
        assert port in opened, namespace
