"""The Kubernetes part of every gate: pods ready, on nodes of their own, claims bound, disruption budgets satisfied.

It is the same for all seven engines, because their charts differ in names only.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cluster.kube import Kube, Manifest, NotAllowed
from components.base import Check, Workload


@dataclass(frozen=True)
class Member:
    """One pod of a component.

    Attributes:
        name: pod name.
        workload: the StatefulSet or Deployment that it belongs to.
        node: where it runs, "" while unscheduled.
        ready: result of its readiness probes.
        restarts: of all its containers.
        trouble: why it is not ready, "" if it is.
    """

    name: str
    workload: str
    node: str
    ready: bool
    restarts: int
    trouble: str


def members(kube: Kube, namespace: str, workload: Workload) -> list[Member]:
    """List the pods of a workload, by name."""
    live = kube.get("apps/v1", workload.kind, workload.name, namespace)
    if live is None:
        return []
    labels = live["spec"]["selector"].get("matchLabels", {})
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    pods = kube.list("v1", "Pod", namespace, selector)
    return sorted((_member(pod, workload.name) for pod in pods), key=lambda member: member.name)


def check_workloads(kube: Kube, namespace: str, workloads: Iterable[Workload]) -> list[Check]:
    """Check a component in Kubernetes.

    Args:
        kube: the cluster.
        namespace: of the engines.
        workloads: what must run.

    Returns:
        For each workload whether it is rolled out; for each group whether no two pods share a node; and whether all
        claims are bound and budgets are satisfied.
    """
    checks: list[Check] = []
    groups: dict[str, list[Member]] = {}
    claims: set[str] = set()
    for workload in workloads:
        started = time.monotonic()
        live = kube.get("apps/v1", workload.kind, workload.name, namespace)
        pods = members(kube, namespace, workload)
        refusal = _refusal(kube, namespace, workload, live, pods) if live else ""
        checks.append(_rolled_out(workload, live, pods, refusal, time.monotonic() - started))
        groups.setdefault(workload.group or workload.name, []).extend(pods)
        for template in (live or {}).get("spec", {}).get("volumeClaimTemplates", []):
            claims |= {f"{template['metadata']['name']}-{pod.name}" for pod in pods}
    checks += [_spread(group, pods) for group, pods in groups.items() if len(pods) > 1]
    if claims:
        checks.append(_claims_bound(kube, namespace, claims))
    return checks


def _rolled_out(
    workload: Workload, live: Manifest | None, pods: list[Member], refusal: str, seconds: float
) -> Check:
    name = f"{workload.name} ready"
    if live is None:
        return Check(
            name, False, f"{workload.kind} {workload.name} does not exist: deploy it", seconds
        )
    wanted = int(live["spec"].get("replicas", 1))
    if wanted != workload.replicas:
        hint = (
            f"declared with {wanted} replicas, but the settings expect {workload.replicas} members"
        )
        return Check(name, False, hint, seconds)
    status = live.get("status", {})
    ready = int(status.get("readyReplicas", 0))
    observed = status.get("observedGeneration") == live["metadata"]["generation"]
    updated = int(status.get("updatedReplicas", 0)) >= wanted or workload.kind == "StatefulSet"
    rolled = workload.kind != "StatefulSet" or status.get("updateRevision") == status.get(
        "currentRevision"
    )
    if ready >= wanted and observed and updated and rolled:
        return Check(name, True, f"{ready} of {wanted}", seconds)
    pods_in_trouble = [f"{pod.name}: {pod.trouble}" for pod in pods if not pod.ready]
    troubles = "; ".join(filter(None, [refusal, *pods_in_trouble]))
    hint = f"{ready} of {wanted} pods ready" + (
        f" ({troubles})" if troubles else ", still rolling out"
    )
    return Check(name, False, hint, seconds, critical=ready == 0)


def _refusal(
    kube: Kube, namespace: str, workload: Workload, live: Manifest, pods: list[Member]
) -> str:
    """Return why the cluster does not create the missing pods: a quota, a policy, a webhook.

    Controllers report it in events with the reason FailedCreate, a Deployment in its condition ReplicaFailure
    (https://github.com/kubernetes/kubernetes/blob/v1.36.3/pkg/controller/controller_utils.go).
    """
    if len(pods) >= int(live["spec"].get("replicas", 1)):
        return ""
    for condition in live.get("status", {}).get("conditions", []):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return (
                f"the cluster rejected a pod: {condition.get('message', condition.get('reason'))}"
            )
    about = {"kind": workload.kind, "metadata": live["metadata"]}
    try:
        events = kube.events(namespace, about, "FailedCreate")
    except NotAllowed:
        return "events cannot be read: this identity lacks the permission"
    newest = max(events, key=_last_seen, default={})
    return f"the cluster rejected a pod: {newest['message']}" if newest.get("message") else ""


def _last_seen(event: Manifest) -> str:
    series = event.get("series", {}).get("lastObservedTime", "")
    return str(series or event.get("lastTimestamp") or event.get("eventTime") or "")


def _spread(group: str, pods: list[Member]) -> Check:
    nodes = Counter(pod.node for pod in pods if pod.node)
    crowded = sorted(node for node, count in nodes.items() if count > 1)
    hint = (
        f"{len(nodes)} nodes"
        if not crowded
        else f"several pods on {', '.join(crowded)}: losing one node loses them all"
    )
    return Check(f"{group} on nodes of their own", not crowded, hint, critical=False)


def _claims_bound(kube: Kube, namespace: str, claims: set[str]) -> Check:
    started = time.monotonic()
    live = {
        claim["metadata"]["name"]: claim
        for claim in kube.list("v1", "PersistentVolumeClaim", namespace)
    }
    loose = sorted(
        name for name in claims if live.get(name, {}).get("status", {}).get("phase") != "Bound"
    )
    hint = (
        f"{len(claims)} claims"
        if not loose
        else f"not bound: {', '.join(loose)} (see kubectl describe pvc)"
    )
    return Check("volumes bound", not loose, hint, time.monotonic() - started)


def _member(pod: dict[str, Any], workload: str) -> Member:
    status = pod.get("status", {})
    containers = status.get("containerStatuses", [])
    ready = any(
        c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", [])
    )
    return Member(
        name=pod["metadata"]["name"],
        workload=workload,
        node=pod["spec"].get("nodeName", ""),
        ready=ready,
        restarts=sum(int(c.get("restartCount", 0)) for c in containers),
        trouble="" if ready else _trouble(status),
    )


def _trouble(status: dict[str, Any]) -> str:
    for container in status.get("containerStatuses", []):
        waiting = container.get("state", {}).get("waiting")
        if waiting:
            why = f"{waiting.get('reason', 'waiting')} {waiting.get('message', '')}"
            return f"container {container['name']}: {why.strip()}"
    for condition in status.get("conditions", []):
        if condition["status"] != "True" and condition.get("message"):
            return str(condition["message"])
    return f"{status.get('phase', 'Pending')}, not ready"
