"""The resource table: computed from the values, written in the design, allowed by the quota."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from kubernetes.utils import quantity

from .conftest import PRODUCTION

GI = Decimal(2**30)


def parse_quantity(text: Any) -> Decimal:
    """A Kubernetes quantity as a number: cores or bytes."""
    parsed: Decimal = quantity.parse_quantity(text)
    return parsed


def at(values: dict[str, Any], path: str) -> Any:
    for part in path.split("."):
        values = values[part]
    return values


@dataclass(frozen=True)
class Pods:
    """Where a release's values say how many pods there are and what each asks for.

    Attributes:
        release: whose values.
        replicas: path of the number of pods.
        resources: paths of the containers' resources, the engine's own first, then its sidecars'.
        size: path of the volume's size.
    """

    release: str
    replicas: str
    resources: tuple[str, ...]
    size: str = ""


ENGINES = {
    "PostgreSQL HA": Pods(
        "postgresql-ha",
        "postgresql.replicaCount",
        ("postgresql.resources", "metrics.resources"),
        "persistence.size",
    ),
    "Redis Cluster": Pods(
        "redis-cluster",
        "cluster.nodes",
        ("redis.resources", "metrics.resources"),
        "persistence.size",
    ),
    "NATS JetStream": Pods(
        "nats",
        "config.cluster.replicas",
        ("container.resources", "reloader.merge.resources", "promExporter.merge.resources"),
        "config.jetstream.fileStore.pvc.size",
    ),
    "MinIO": Pods("minio", "replicas", ("resources",), "persistence.size"),
    "Qdrant": Pods("qdrant", "replicaCount", ("resources",), "persistence.size"),
    "Neo4j": Pods(
        "neo4j-1",
        "neo4j.minimumClusterSize",
        ("neo4j.resources",),
        "volumes.data.dynamic.requests.storage",
    ),
    "EMQX": Pods("emqx", "replicaCount", ("resources",), "persistence.size"),
}
PGPOOL = Pods("postgresql-ha", "pgpool.replicaCount", ("pgpool.resources",))


def requested(resources: dict[str, Any]) -> dict[str, Decimal]:
    """CPU and memory of a container, whose requests must be its limits."""
    if "requests" in resources:
        assert resources["requests"] == resources["limits"], (
            "a pod is Guaranteed only if requests are limits"
        )
        resources = resources["requests"]
    return {key: parse_quantity(resources[key]) for key in ("cpu", "memory")}


def rows(values: dict[str, dict[str, Any]]) -> dict[str, tuple[int, Decimal, Decimal, Decimal]]:
    """Engine → pods, CPU, memory and volume of one pod, the engine's container alone."""
    table = {}
    for name, pods in ENGINES.items():
        own = requested(at(values[pods.release], pods.resources[0]))
        size = parse_quantity(at(values[pods.release], pods.size))
        count = int(at(values[pods.release], pods.replicas))
        table[name] = (count, own["cpu"], own["memory"], size)
    return table


def plain(number: Decimal) -> str:
    return f"{number.normalize():f}"


def test_the_sum_is_the_design(values: dict[str, dict[str, Any]]) -> None:
    table = rows(values).values()
    assert sum(pods for pods, *_ in table) == 25
    assert sum(pods * cpu for pods, cpu, *_ in table) == 38
    assert sum(pods * memory for pods, _, memory, _ in table) == 76 * GI
    assert sum(pods * volume for pods, *_, volume in table) == 1850 * GI


def test_the_document_has_the_table_that_the_values_make(values: dict[str, dict[str, Any]]) -> None:
    document = (PRODUCTION / "PRODUCTION_DESIGN.md").read_text()
    for name, (pods, cpu, memory, volume) in rows(values).items():
        row = (
            f"| {name} | {pods} | {plain(cpu)} | {plain(memory / GI)}Gi | {plain(volume / GI)}Gi |"
        )
        assert row in document
    assert "| **Sum** | **25** | **38** | **76Gi** | **1850Gi** |" in document


def test_every_neo4j_member_is_a_release_of_its_own(values: dict[str, dict[str, Any]]) -> None:
    members = [name for name in values if re.fullmatch(r"neo4j-\d", name)]
    assert len(members) == values["neo4j-1"]["neo4j"]["minimumClusterSize"]
    assert len({values[name]["neo4j"]["name"] for name in [*members, "neo4j-headless"]}) == 1


def test_the_quota_holds_the_releases_with_sidecars_and_a_rolling_pgpool(
    values: dict[str, dict[str, Any]], manifests: list[dict[str, Any]]
) -> None:
    total = {"cpu": Decimal(0), "memory": Decimal(0)}
    for pods in [*ENGINES.values(), PGPOOL]:
        count = int(at(values[pods.release], pods.replicas))
        for path in pods.resources:
            for resource, amount in requested(at(values[pods.release], path)).items():
                total[resource] += count * amount
    for resource, amount in requested(at(values["postgresql-ha"], "pgpool.resources")).items():
        total[resource] += amount  # maxSurge 25 % of two pods is one
    (quota,) = [
        m["spec"]["hard"]
        for m in manifests
        if m["kind"] == "ResourceQuota" and m["metadata"]["namespace"] == "isa-cloud-production"
    ]
    for resource in ("cpu", "memory"):
        assert parse_quantity(quota[f"requests.{resource}"]) >= total[resource]
        assert quota[f"limits.{resource}"] == quota[f"requests.{resource}"], (
            "all engines are Guaranteed"
        )
    assert parse_quantity(quota["requests.storage"]) >= 1850 * GI
    assert int(quota["persistentvolumeclaims"]) >= 25
    assert int(quota["pods"]) >= 28
    comment = (PRODUCTION / "namespace.yaml").read_text()
    written = re.search(r"#\s+sum\s+([\d.]+)\s+([\d.]+)Gi\s+(\d+)Gi", comment)
    assert written, "namespace.yaml says how the quota was computed"
    assert [Decimal(number) for number in written.groups()] == [
        total["cpu"],
        (total["memory"] / GI).quantize(Decimal("0.01")),
        1850,
    ]


def test_volumes_and_data_outlive_the_release(manifests: list[dict[str, Any]]) -> None:
    classes = {m["metadata"]["name"]: m for m in manifests if m["kind"] == "StorageClass"}
    scratch = classes.pop("infotrend-scratch")
    assert scratch["reclaimPolicy"] == "Delete"  # nothing but what goes with its pod
    assert set(classes) == {"infotrend-block", "infotrend-nfs"}
    assert {c["reclaimPolicy"] for c in classes.values()} == {"Retain"}
    assert classes["infotrend-block"]["volumeBindingMode"] == "WaitForFirstConsumer"
    assert classes["infotrend-block"]["allowVolumeExpansion"] is True


def test_qdrant_writes_snapshots_to_its_claim_and_not_to_the_nodes_disk(
    values: dict[str, dict[str, Any]],
) -> None:
    path = at(values["qdrant"], "config.storage.snapshots_path")
    # the chart mounts the claim at /qdrant/storage, and an emptyDir at /qdrant/snapshots, the server's default
    assert path.startswith("/qdrant/storage/")
    assert not values["qdrant"]["snapshotPersistence"]["enabled"]
