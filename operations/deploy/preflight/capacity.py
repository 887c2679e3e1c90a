"""Checks that the pods fit: places all pods on the nodes, as the scheduler would have to.

Counting totals is not enough: required anti-affinity makes Redis need six nodes however large they are. So pods are
placed one by one, the largest first (first-fit decreasing), each on a node that has room and no pod that it must
not share it with. If there is none, the result names the component and the number of missing nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from cluster.kube import Manifest

HOSTNAME = "kubernetes.io/hostname"
RESOURCES = ("cpu", "memory", "ephemeral-storage")


@dataclass(frozen=True)
class PodRequest:
    """A pod that must be placed.

    Attributes:
        component: engine that it belongs to.
        workload: name of its StatefulSet or Deployment.
        requests: resource → amount, in cores and bytes.
        labels: of the pod.
        apart: label selectors of pods that may not share its node.
        storage: volume sizes by storage class, in bytes.
        limits: resource → amount, of the containers that have one.
    """

    component: str
    workload: str
    requests: dict[str, Decimal]
    labels: dict[str, str]
    apart: tuple[dict[str, str], ...] = ()
    storage: tuple[tuple[str, Decimal], ...] = ()
    limits: dict[str, Decimal] = field(default_factory=dict)


@dataclass
class Node:
    """A schedulable node.

    Attributes:
        name: node name.
        free: resource → amount not requested by other pods.
        pods: what is placed on it here.
    """

    name: str
    free: dict[str, Decimal]
    pods: list[PodRequest] = field(default_factory=list)

    def takes(self, pod: PodRequest) -> str:
        """Why the pod cannot be placed here; "" if it can."""
        for resource, amount in pod.requests.items():
            if self.free.get(resource, Decimal(0)) < amount:
                return resource
        for neighbour in self.pods:
            if any(_matches(s, neighbour.labels) for s in pod.apart) or any(
                _matches(s, pod.labels) for s in neighbour.apart
            ):
                return "anti-affinity"
        return ""


@dataclass(frozen=True)
class Shortage:
    """Pods of one workload that found no node.

    Attributes:
        component: engine.
        workload: StatefulSet or Deployment.
        missing: pods without a node.
        causes: what the nodes lacked: `cpu`, `memory`, `anti-affinity`.
        request: what one of the pods asks for.
    """

    component: str
    workload: str
    missing: int
    causes: tuple[str, ...]
    request: dict[str, Decimal]

    def __str__(self) -> str:
        per_pod = (
            f"{self.request.get('cpu', 0)} CPU, {int(self.request.get('memory', 0)) >> 20} MiB"
        )
        causes = " and ".join(self.causes) or "no schedulable node"
        return (
            f"{self.workload} of {self.component}: {self.missing} pod(s) fit on no node ({causes}; each pod requests "
            f"{per_pod}): add {self.missing} node(s) of that size"
        )


def place(pods: Sequence[PodRequest], nodes: Sequence[Node]) -> list[Shortage]:
    """Place all pods, changing `nodes`; return the workloads that do not fit."""
    failures: dict[str, list[tuple[PodRequest, set[str]]]] = {}
    # The most constrained first: anti-affinity sets by size, then by memory.
    counts: dict[str, int] = {}
    for pod in pods:
        counts[pod.workload] = counts.get(pod.workload, 0) + 1
    for pod in sorted(
        pods,
        key=lambda p: (bool(p.apart), counts[p.workload], p.requests.get("memory", 0)),
        reverse=True,
    ):
        causes: set[str] = set()
        # the emptiest first spreads like the scheduler's default scoring
        for node in sorted(nodes, key=lambda n: n.free.get("memory", Decimal(0)), reverse=True):
            cause = node.takes(pod)
            if not cause:
                node.pods.append(pod)
                for resource, amount in pod.requests.items():
                    node.free[resource] -= amount
                break
            causes.add(cause)
        else:
            failures.setdefault(pod.workload, []).append((pod, causes))
    return [
        Shortage(
            found[0][0].component, workload, len(found), tuple(sorted(set().union(*(c for _, c in found)))),
            found[0][0].requests,
        )
        for workload, found in failures.items()
    ]  # fmt: skip


def pods_of(component: str, manifests: Iterable[Manifest]) -> list[PodRequest]:
    """The pods that a rendering asks for."""
    pods: list[PodRequest] = []
    for manifest in manifests:
        if manifest["kind"] not in ("StatefulSet", "Deployment"):
            continue
        spec = manifest["spec"]
        template = spec["template"]
        pod = PodRequest(
            component=component,
            workload=manifest["metadata"]["name"],
            requests=pod_requests(template["spec"]),
            labels=template.get("metadata", {}).get("labels", {}),
            limits=pod_limits(template["spec"]),
            apart=tuple(_apart(template["spec"])),
            storage=tuple(
                (
                    claim["spec"].get("storageClassName", ""),
                    amount(str(claim["spec"]["resources"]["requests"]["storage"])),
                )
                for claim in spec.get("volumeClaimTemplates", [])
            ),
        )
        pods += [pod] * int(spec.get("replicas", 1))
    return pods


def free_nodes(nodes: Iterable[Manifest], pods: Iterable[Manifest], ours: set[str]) -> list[Node]:
    """What is allocatable and not asked for by other pods.

    Args:
        nodes: live Nodes; cordoned ones are left out.
        pods: all live pods.
        ours: names of workloads that will be placed again, and so do not count.
    """
    free = {
        node["metadata"]["name"]: Node(
            node["metadata"]["name"],
            {r: amount(node["status"]["allocatable"].get(r, "0")) for r in RESOURCES},
        )
        for node in nodes
        if not node["spec"].get("unschedulable") and _ready(node)
    }
    for pod in pods:
        name = pod["spec"].get("nodeName", "")
        done = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        owner = pod["metadata"].get("ownerReferences", [{}])[0].get("name", "")
        is_ours = (
            owner in ours or owner.rpartition("-")[0] in ours
        )  # Deployment pods hang on a ReplicaSet
        if name not in free or done or is_ours:
            continue
        for resource, asked in pod_requests(pod["spec"]).items():
            free[name].free[resource] -= asked
    return list(free.values())


def pod_requests(spec: dict[str, Any]) -> dict[str, Decimal]:
    """Sum of the containers' requests, or the largest init container if that is more (the scheduler's rule)."""
    total = {r: sum((_request(c, r) for c in spec["containers"]), Decimal(0)) for r in RESOURCES}
    for container in spec.get("initContainers", []):
        for resource in RESOURCES:
            total[resource] = max(total[resource], _request(container, resource))
    return {resource: value for resource, value in total.items() if value}


def pod_limits(spec: dict[str, Any]) -> dict[str, Decimal]:
    """Sum of the containers' limits, or the largest init container's, as a quota counts them."""
    total = {r: sum((_limit(c, r) for c in spec["containers"]), Decimal(0)) for r in RESOURCES}
    for container in spec.get("initContainers", []):
        for resource in RESOURCES:
            total[resource] = max(total[resource], _limit(container, resource))
    return {resource: value for resource, value in total.items() if value}


def amount(quantity: str) -> Decimal:
    """Parse a Kubernetes quantity (`500m`, `4Gi`) into cores or bytes."""
    return Decimal(parse_quantity(quantity))


def _request(container: dict[str, Any], resource: str) -> Decimal:
    resources = container.get("resources") or {}
    # a limit without a request is the request: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/
    value = (resources.get("requests") or {}).get(resource) or (resources.get("limits") or {}).get(
        resource
    )
    return amount(str(value)) if value else Decimal(0)


def _limit(container: dict[str, Any], resource: str) -> Decimal:
    value = container.get("resources", {}).get("limits", {}).get(resource)
    return amount(str(value)) if value else Decimal(0)


def _apart(spec: dict[str, Any]) -> Iterable[dict[str, str]]:
    rules = ((spec.get("affinity") or {}).get("podAntiAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or []
    for rule in rules:
        selector = rule.get("labelSelector") or {}
        if rule.get("topologyKey") != HOSTNAME:
            continue
        labels = dict(selector.get("matchLabels") or {})
        for expression in selector.get("matchExpressions") or []:
            if expression["operator"] == "In" and len(expression["values"]) == 1:
                labels[expression["key"]] = expression["values"][0]
        yield labels


def _matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def _ready(node: Manifest) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
