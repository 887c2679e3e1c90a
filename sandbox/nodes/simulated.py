"""The cluster's nodes: objects that KWOK keeps alive, created with all that a scheduler asks about."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.kube import Kube, Manifest

ZONES = 3


@dataclass(frozen=True)
class NodeSize:
    """How large the cluster's nodes are.

    Attributes:
        count: nodes, spread over three zones.
        cpu: cores of each.
        memory: of each, as Kubernetes writes it.
    """

    count: int = 8
    cpu: str = "16"
    memory: str = "64Gi"


def ensure(kube: Kube, size: NodeSize | None) -> None:
    """Create the nodes that are not there.

    Args:
        kube: the cluster.
        size: wanted; None takes the nodes that there are, or the default where there are none.
    """
    have = {node["metadata"]["name"] for node in kube.list("v1", "Node")}
    if size is None and have:
        return
    size = size or NodeSize()
    for number in range(1, size.count + 1):
        if f"node-{number}" not in have:
            kube.create(_node(number, size))


def all_ready(kube: Kube) -> bool:
    """Whether there are nodes and pods can be scheduled on each."""
    nodes = kube.list("v1", "Node")
    return bool(nodes) and all(_ready(n) and not n["spec"].get("taints") for n in nodes)


def _node(number: int, size: NodeSize) -> Manifest:
    name = f"node-{number}"
    # Bitnami's charts request ephemeral storage: without it their pods stay Pending.
    resources = {
        "cpu": size.cpu,
        "memory": size.memory,
        "pods": "110",
        "ephemeral-storage": "500Gi",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "topology.kubernetes.io/zone": f"zone-{(number - 1) % ZONES + 1}",
            },
        },
        # both addresses, or KWOK writes a list of its own
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": "127.0.0.1"},
                {"type": "Hostname", "address": name},
            ],
            "capacity": resources,
            "allocatable": resources,
        },
    }


def _ready(node: Manifest) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
