"""Pods of the stand-in charts ask for what production's ask: room, volumes, places, secrets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contracts.shape import Manifest, of_kind, workloads

from .rendering import SANDBOX, releases, sandbox

RELEASES = list(releases(SANDBOX))
# Made by the product before the first release: name → keys.
SECRETS = {
    "postgresql-ha-auth": {"password", "postgres-password", "repmgr-password"},
    "pgpool-auth": {"admin-password", "sr-check-password"},
    "redis-auth": {"redis-password"},
    "nats-auth": {"sys-password", "app-password"},
    "minio-auth": {"rootUser", "rootPassword"},
    "qdrant-auth": {"api-key", "read-only-api-key"},
    "neo4j-auth": {"NEO4J_AUTH"},
    "emqx-auth": {"EMQX_DASHBOARD__DEFAULT_PASSWORD", "EMQX_NODE__COOKIE"},
}
# The design's table: release → workload, CPU, memory, size of the volume.
DESIGN = {
    "postgresql-ha": ("postgresql-ha-postgresql", "2", "4Gi", "100Gi"),
    "redis-cluster": ("redis-cluster", "1", "2Gi", "20Gi"),
    "nats": ("nats", "1", "2Gi", "50Gi"),
    "minio": ("minio", "2", "4Gi", "200Gi"),
    "qdrant": ("qdrant", "2", "4Gi", "100Gi"),
    "neo4j-1": ("neo4j-1", "2", "4Gi", "50Gi"),
    "emqx": ("emqx", "1", "2Gi", "10Gi"),
}
# What a kubelet would ask the engine's container, readiness first.
PROBES = {
    "postgresql-ha-postgresql": ["exec", "exec", None],
    "postgresql-ha-pgpool": ["exec", "exec", None],
    "redis-cluster": ["exec", "exec", None],
    "nats": ["httpGet", "httpGet", "httpGet"],
    "minio": [None, None, None],
    "qdrant": ["httpGet", "httpGet", "httpGet"],
    "neo4j-1": ["tcpSocket", "tcpSocket", "tcpSocket"],
    "emqx": ["httpGet", "httpGet", None],
}
HANDLERS = {"exec", "httpGet", "tcpSocket", "grpc"}


def all_workloads() -> dict[str, Manifest]:
    return {
        workload["metadata"]["name"]: workload
        for release in RELEASES
        for workload in workloads(sandbox(release))
    }


def workload_named(name: str) -> Manifest:
    return all_workloads()[name]


def pod_spec(workload: Manifest) -> dict[str, Any]:
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


def secret_references(spec: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Every (Secret, key) that a pod needs; the key is None where the whole Secret is taken."""
    for container in spec["containers"]:
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference:
                yield reference["name"], reference["key"]
        for source in container.get("envFrom") or []:
            if "secretRef" in source:
                yield source["secretRef"]["name"], None
    for volume in spec.get("volumes") or []:
        if "secret" in volume:
            items = volume["secret"].get("items")
            keys = [item["key"] for item in items] if items else [None]
            yield from ((volume["secret"]["secretName"], key) for key in keys)


def config_maps(spec: dict[str, Any]) -> Iterator[str]:
    for container in spec["containers"]:
        yield from (
            source["configMapRef"]["name"]
            for source in container.get("envFrom") or []
            if "configMapRef" in source
        )
    for volume in spec.get("volumes") or []:
        sources = [volume, *volume.get("projected", {}).get("sources", [])]
        yield from (source["configMap"]["name"] for source in sources if "configMap" in source)


@pytest.mark.parametrize("release", DESIGN)
def test_engines_have_the_designs_size_as_request_and_limit(release: str) -> None:
    name, cpu, memory, size = DESIGN[release]
    workload = workload_named(name)
    engine = pod_spec(workload)["containers"][0]
    (claim,) = workload["spec"]["volumeClaimTemplates"]

    assert engine["resources"]["requests"] == {"cpu": cpu, "memory": memory}
    assert engine["resources"]["limits"] == engine["resources"]["requests"]
    assert claim["spec"]["resources"] == {"requests": {"storage": size}}
    assert claim["spec"]["storageClassName"] == "infotrend-block"
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


@pytest.mark.parametrize("name", PROBES)
def test_no_container_goes_without_a_limit(name: str) -> None:
    workload = workload_named(name)
    for container in pod_spec(workload)["containers"]:
        assert set(container["resources"]["limits"]) >= {"cpu", "memory"}, container["name"]


@pytest.mark.parametrize("name", PROBES)
def test_members_are_kept_on_different_nodes(name: str) -> None:
    workload = workload_named(name)
    affinity = pod_spec(workload)["affinity"]["podAntiAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
    labels = workload["spec"]["template"]["metadata"]["labels"]

    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert term["labelSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("name", PROBES)
def test_members_are_spread_over_the_zones(name: str) -> None:
    workload = workload_named(name)
    (constraint,) = pod_spec(workload)["topologySpreadConstraints"]
    labels = workload["spec"]["template"]["metadata"]["labels"]

    assert constraint["topologyKey"] == "topology.kubernetes.io/zone"
    assert constraint["labelSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("name", PROBES)
def test_secrets_are_referred_to_and_exist(name: str) -> None:
    workload = workload_named(name)
    references = set(secret_references(pod_spec(workload)))

    assert references
    for secret, key in references:
        assert secret in SECRETS
        assert key is None or key in SECRETS[secret], f"{secret}/{key}"


def test_every_secret_is_used_whole() -> None:
    used: dict[str, set[str]] = {}
    for workload in all_workloads().values():
        for name, key in secret_references(pod_spec(workload)):
            used.setdefault(name, set()).update(SECRETS[name] if key is None else {key})

    assert used == SECRETS


def test_these_are_all_the_workloads() -> None:
    assert set(all_workloads()) == set(PROBES)


@pytest.mark.parametrize("release", RELEASES)
def test_no_release_brings_a_secret_of_its_own(release: str) -> None:
    assert not of_kind(sandbox(release), "Secret")


@pytest.mark.parametrize("release", sorted(set(RELEASES) - {"neo4j-headless"}))
def test_config_maps_and_service_accounts_come_with_the_release(release: str) -> None:
    documents = sandbox(release)
    made = {(entry["kind"], entry["metadata"]["name"]) for entry in documents}

    for workload in workloads(documents):
        spec = pod_spec(workload)
        for name in config_maps(spec):
            assert ("ConfigMap", name) in made
        if "serviceAccountName" in spec:
            assert ("ServiceAccount", spec["serviceAccountName"]) in made


@pytest.mark.parametrize("name", PROBES)
def test_mounts_have_a_volume_or_a_claim(name: str) -> None:
    workload = workload_named(name)
    spec = pod_spec(workload)
    claims = workload["spec"].get("volumeClaimTemplates", [])
    volumes = {entry["name"] for entry in spec.get("volumes") or []}
    volumes |= {claim["metadata"]["name"] for claim in claims}

    for container in spec["containers"]:
        assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes


@pytest.mark.parametrize("release", sorted(set(RELEASES) - {"neo4j-headless"}))
def test_services_lead_to_ports_of_the_pods_they_select(release: str) -> None:
    pods = [workload["spec"]["template"] for workload in workloads(sandbox(release))]

    for service in of_kind(sandbox(release), "Service"):
        chosen = [
            pod
            for pod in pods
            if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        ]
        assert chosen, service["metadata"]["name"]
        for pod in chosen:
            ports = [
                port
                for container in pod["spec"]["containers"]
                for port in container.get("ports", [])
            ]
            known = {port["name"] for port in ports} | {port["containerPort"] for port in ports}
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= known


@pytest.mark.parametrize("name", PROBES)
def test_the_engine_is_probed_as_in_the_real_chart(name: str) -> None:
    workload = workload_named(name)
    engine = pod_spec(workload)["containers"][0]
    found = []
    for kind in ("readinessProbe", "livenessProbe", "startupProbe"):
        handlers = HANDLERS & set(engine.get(kind, {}))
        found.append(handlers.pop() if handlers else None)

    assert found == PROBES[name]


@pytest.mark.parametrize(
    ("name", "handler"),
    [
        ("nats", {"httpGet": {"path": "/healthz?js-server-only=true", "port": "monitor"}}),
        ("qdrant", {"httpGet": {"path": "/readyz", "port": 6333}}),
        ("neo4j-1", {"tcpSocket": {"port": 7687}}),
        ("emqx", {"httpGet": {"path": "/status", "port": 18083}}),
    ],
)
def test_readiness_is_asked_where_the_engine_answers(name: str, handler: dict[str, Any]) -> None:
    probe = pod_spec(workload_named(name))["containers"][0]["readinessProbe"]

    assert {key: value for key, value in probe.items() if key in HANDLERS} == handler


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("postgresql-ha-postgresql", 120), ("redis-cluster", 60), ("nats", 60), ("neo4j-1", 600)],
)
def test_engines_get_time_to_stop(name: str, seconds: int) -> None:
    assert pod_spec(workload_named(name))["terminationGracePeriodSeconds"] == seconds


@pytest.mark.parametrize("name", ["postgresql-ha-postgresql", "redis-cluster"])
def test_volumes_outlive_their_members(name: str) -> None:
    workload = workload_named(name)

    assert workload["spec"]["persistentVolumeClaimRetentionPolicy"] == {
        "whenDeleted": "Retain",
        "whenScaled": "Retain",
    }
