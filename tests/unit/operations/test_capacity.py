from __future__ import annotations

from decimal import Decimal
from typing import Any

from operations.deploy.preflight.capacity import (
    Node,
    PodRequest,
    free_nodes,
    place,
    pod_requests,
    pods_of,
)

GIB = Decimal(1 << 30)


def nodes(count: int, cpu: int = 8, memory: int = 16) -> list[Node]:
    return [Node(f"node-{n}", {"cpu": Decimal(cpu), "memory": memory * GIB}) for n in range(count)]


def pods(
    workload: str, count: int, cpu: int = 1, memory: int = 2, *, apart: bool = True
) -> list[PodRequest]:
    labels = {"app": workload}
    request = {"cpu": Decimal(cpu), "memory": memory * GIB}
    return [PodRequest(workload, workload, request, labels, (labels,) if apart else ())] * count


def live_node(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": spec,
        "status": {
            "allocatable": {"cpu": "8", "memory": "16Gi", "ephemeral-storage": "100Gi"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def live_pod(node: str, owner: str, cpu: str) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{owner}-0", "ownerReferences": [{"name": owner}]},
        "spec": {"nodeName": node, "containers": [{"resources": {"requests": {"cpu": cpu}}}]},
        "status": {"phase": "Running"},
    }


def test_redis_needs_six_nodes_however_large_they_are() -> None:
    (short,) = place(pods("redis", 6), nodes(4, cpu=64))
    assert (short.component, short.missing, short.causes) == ("redis", 2, ("anti-affinity",))
    assert place(pods("redis", 6), nodes(6)) == []


def test_nodes_that_are_too_small_are_told_apart_from_too_few() -> None:
    (short,) = place(pods("minio", 4, cpu=10), nodes(8))
    assert short.missing == 4 and short.causes == ("cpu",)
    assert "10 CPU" in str(short) and "add 4 node(s)" in str(short)


def test_pods_without_a_rule_may_share_a_node() -> None:
    assert place(pods("pgpool", 5, apart=False), nodes(1)) == []


def test_a_full_platform_fits_where_the_constrained_are_placed_first() -> None:
    wanted = [*pods("small", 6, cpu=4, apart=False), *pods("redis", 6, cpu=4)]
    assert place(wanted, nodes(6)) == []


def test_what_others_ask_for_is_not_free_and_what_we_would_replace_is() -> None:
    live = [live_pod("a", "someone-else", "6"), live_pod("b", "redis-cluster", "6")]
    free = free_nodes([live_node("a"), live_node("b")], live, {"redis-cluster"})
    assert {node.name: node.free["cpu"] for node in free} == {"a": 2, "b": 8}


def test_pods_of_a_deployment_are_recognised_through_their_replica_set() -> None:
    free = free_nodes([live_node("a")], [live_pod("a", "pgpool-56dcc5bf68", "6")], {"pgpool"})
    assert free[0].free["cpu"] == 8


def test_cordoned_nodes_take_no_pods() -> None:
    assert free_nodes([live_node("a", unschedulable=True)], [], set()) == []


def test_a_pod_asks_for_its_containers_together_or_its_largest_init_container() -> None:
    def container(cpu: str) -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu}}}

    spec = {"containers": [container("500m"), container("1")], "initContainers": [container("1")]}
    assert pod_requests(spec)["cpu"] == Decimal("1.5")
    spec["initContainers"].append(container("3"))
    assert pod_requests(spec)["cpu"] == Decimal(3)


def test_a_limit_without_a_request_counts_as_the_request() -> None:
    assert pod_requests({"containers": [{"resources": {"limits": {"cpu": "2"}}}]})["cpu"] == 2


def test_a_rendering_becomes_as_many_pods_as_it_has_replicas() -> None:
    template = {
        "metadata": {"labels": {"app": "redis"}},
        "spec": {
            "containers": [{"resources": {"requests": {"cpu": "1"}}}],
            "affinity": {
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {
                            "topologyKey": "kubernetes.io/hostname",
                            "labelSelector": {
                                "matchExpressions": [
                                    {"key": "app", "operator": "In", "values": ["redis"]}
                                ]
                            },
                        }
                    ]
                }
            },
        },
    }
    claim = {
        "metadata": {"name": "data"},
        "spec": {"storageClassName": "block", "resources": {"requests": {"storage": "20Gi"}}},
    }
    manifest = {
        "kind": "StatefulSet",
        "metadata": {"name": "redis"},
        "spec": {"replicas": 6, "template": template, "volumeClaimTemplates": [claim]},
    }
    made = pods_of("redis", [manifest, {"kind": "Service", "metadata": {"name": "redis"}}])
    assert len(made) == 6
    assert made[0].apart == ({"app": "redis"},)
    assert made[0].storage == (("block", 20 * GIB),)
