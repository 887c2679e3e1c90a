"""Checks that the declared pods, claims and objects fit into the namespace's quotas.

The API server refuses an object that exceeds a quota when it is created, which for pods and claims is by a controller,
long after helm has applied the workload. So the sums are calculated before, of all resources that a quota can name
(https://kubernetes.io/docs/concepts/policy/resource-quotas/).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

from cluster.manifests import Manifest
from components import COMPONENTS
from components.base import Check
from operations.deploy.plan import Plan
from operations.deploy.preflight.capacity import PodRequest, amount
from operations.environment.environment import NAMESPACE, Environment

# A quota of such a scope counts pods with a deadline, or pods that ask for nothing: none of these are.
OTHER_SCOPES = {"Terminating", "BestEffort", "CrossNamespacePodAffinity", "PriorityClass"}
# Objects that have a name in quotas from before `count/…`.
OLD_NAMES = {"services", "secrets", "configmaps", "replicationcontrollers", "resourcequotas"}


def check_quota(environment: Environment, plan: Plan, pods: list[PodRequest]) -> Iterator[Check]:
    """Compare what all releases need with every quota, declared or live, of the engines' namespace."""
    namespace = environment.settings.kubernetes.namespace
    declared = {
        m["metadata"]["name"]: m["spec"]
        for m in environment.manifests[NAMESPACE]
        if m["kind"] == "ResourceQuota" and m["metadata"].get("namespace") == namespace
    }
    live = {
        q["metadata"]["name"]: q["spec"]
        for q in environment.kube.list("v1", "ResourceQuota", namespace)
    }
    quotas = {
        name: spec.get("hard", {})
        for name, spec in {**live, **declared}.items()
        if not OTHER_SCOPES & _scopes(spec)
    }
    manifests = [m for node in plan.nodes for release in node.releases for m in release.manifests]
    own = [
        m for m in environment.manifests[NAMESPACE] if m["metadata"].get("namespace") == namespace
    ]
    secrets = sum(len(COMPONENTS[n.name].secrets) for n in plan.nodes if n.name in COMPONENTS)
    # helm keeps a Secret a revision
    secrets += sum(planned.release.history for node in plan.nodes for planned in node.releases)
    kept = [("", "secrets")] * secrets
    needed = needs(pods) | objects([*kept, *_plurals(environment, [*manifests, *own])])
    short = list(shortages(quotas, needed))
    yield Check("quota", not short, "; ".join(short) or ", ".join(sorted(quotas)) or "no quota")


def shortages(
    quotas: Mapping[str, Mapping[str, str]], needed: Mapping[str, Decimal]
) -> Iterator[str]:
    """Name each resource of which a quota allows less than is needed.

    Args:
        quotas: name of each quota → resource → what it allows.
        needed: resource → amount.
    """
    for name, hard in quotas.items():
        for resource in sorted(needed.keys() & hard.keys()):
            if amount(str(hard[resource])) < needed[resource]:
                need = _plain(resource, needed[resource])
                yield f"{name}: {resource} allows {hard[resource]}, but {need} are needed"


def needs(pods: Iterable[PodRequest]) -> dict[str, Decimal]:
    """What pods and their claims need, under each name that a quota has for it."""
    total: defaultdict[str, Decimal] = defaultdict(Decimal)
    for pod in pods:
        for name in ("pods", "count/pods"):
            total[name] += 1
        for resource, value in pod.requests.items():
            for name in (resource, f"requests.{resource}"):
                total[name] += value
        for resource, value in pod.limits.items():
            total[f"limits.{resource}"] += value
        for storage_class, size in pod.storage:
            of_class = f"{storage_class}.storageclass.storage.k8s.io"
            for name in ("", "count/", f"{of_class}/"):
                total[f"{name}persistentvolumeclaims"] += 1
            for name in ("", f"{of_class}/"):
                total[f"{name}requests.storage"] += size
    return dict(total)


def objects(kinds: Iterable[tuple[str, str]]) -> dict[str, Decimal]:
    """How many objects are declared, under each name that a quota has for them.

    Args:
        kinds: of each object the API group, "" for the core's, and the plural of its kind.
    """
    total: Counter[str] = Counter()
    for group, plural in kinds:
        total[f"count/{plural}.{group}" if group else f"count/{plural}"] += 1
        if not group and plural in OLD_NAMES:
            total[plural] += 1
    return {resource: Decimal(value) for resource, value in total.items()}


def _plurals(environment: Environment, manifests: Iterable[Manifest]) -> Iterator[tuple[str, str]]:
    served = set(environment.kube.api_versions())
    for manifest in manifests:
        version, kind = manifest["apiVersion"], manifest["kind"]
        if f"{version}/{kind}" in served:
            resource = environment.kube.resource(version, kind)
            if resource.namespaced:
                yield version.rpartition("/")[0], resource.plural


def _scopes(spec: Mapping[str, object]) -> set[str]:
    selector = spec.get("scopeSelector")
    chosen = selector.get("matchExpressions", []) if isinstance(selector, dict) else []
    named = spec.get("scopes")
    return {*(named if isinstance(named, list) else ()), *(e.get("scopeName") for e in chosen)}


def _plain(resource: str, value: Decimal) -> str:
    if "memory" in resource or resource.endswith("storage"):
        return f"{int(value) >> 30}Gi"
    return f"{value.normalize():f}"
