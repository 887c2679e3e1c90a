"""Preflight: checks, before the first change, everything that can fail, over all releases at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

from archive.object_store.endpoint import check_endpoint
from cluster.credentials import read_secret
from cluster.helm.charts import kept_archive
from cluster.kube import Manifest
from components import COMPONENTS
from components.base import Check
from errors import IsaError
from operations.deploy.plan import UNKNOWN, NodePlan, Plan
from operations.deploy.preflight.capacity import PodRequest, Shortage, free_nodes, place, pods_of
from operations.deploy.preflight.dry_run import check_changes
from operations.deploy.preflight.quota import check_quota
from operations.environment.environment import STORAGE, Environment


def preflight(
    environment: Environment, plan: Plan, selected: Collection[str] | None = None
) -> tuple[Check, ...]:
    """Run all checks of a plan.

    Args:
        environment: opened.
        plan: with the rendered manifests.
        selected: nodes that are to be changed, all if None: charts and room that other nodes lack do not block these.

    Returns:
        One finding per check; several if several components are concerned.
    """
    pods = [
        pod
        for node in plan.nodes
        for release in node.releases
        for pod in pods_of(node.name, release.manifests)
    ]
    questions: list[tuple[str, Callable[[], Iterable[Check]]]] = [
        ("Helm", lambda: [Check("Helm", True, f"version {environment.helm.major}")]),
        ("namespaces", lambda: _namespaces(environment)),
        ("charts", lambda: _charts(plan, selected)),
        ("chart archives", lambda: _chart_archives(environment)),
        ("capacity", lambda: _capacity(environment, pods, selected)),
        ("storage classes", lambda: _storage_classes(environment, pods)),
        ("quota", lambda: check_quota(environment, plan, pods)),
        ("API versions", lambda: _api_versions(environment, plan)),
        ("secrets", lambda: _secrets(environment, plan)),
        ("volumes", lambda: _orphaned_volumes(environment, plan)),
        ("changes in place", lambda: check_changes(environment, plan)),
        ("licences", lambda: _licences(environment)),
        ("object store", lambda: _object_store(environment)),
    ]
    findings: list[Check] = []
    for name, ask in questions:
        started = time.monotonic()
        try:
            answers = list(ask())
        except IsaError as exc:
            answers = [Check(name, False, str(exc))]
        seconds = time.monotonic() - started
        findings += [replace(answer, seconds=round(seconds, 3)) for answer in answers]
    return tuple(findings)


def _namespaces(environment: Environment) -> Iterator[Check]:
    """Namespaces that are being deleted: nothing can be created in them."""
    kubernetes = environment.settings.kubernetes
    for name in (kubernetes.namespace, kubernetes.control_namespace, kubernetes.verify_namespace):
        live = environment.kube.get("v1", "Namespace", name) or {}
        if live.get("status", {}).get("phase") == "Terminating":
            finalizers = "; ".join(
                condition["message"]
                for condition in live["status"].get("conditions") or ()
                if condition.get("status") == "True" and condition.get("message")
            )
            hint = (
                f"is being deleted ({finalizers or 'no finalizer is known'}): wait until it is gone"
            )
            yield Check(f"namespace {name}", False, hint)


def _charts(plan: Plan, selected: Collection[str] | None) -> Iterator[Check]:
    releases = [release for node in plan.nodes for release in node.releases]
    broken = [release for release in releases if release.action == UNKNOWN]
    for release in broken:
        needed = selected is None or release.release.component in selected
        name = f"chart of {release.release.name}"
        yield Check(name, False, release.reasons[0], critical=needed)
    if not broken:
        yield Check("charts", True, f"all {len(releases)} render")


def _chart_archives(environment: Environment) -> Iterator[Check]:
    """Whether a deploy after a disaster needs the charts' hosts."""
    directory = environment.settings.charts.directory
    remote = {r.locked_as: r for r in environment.releases.releases if r.version}
    loose = [
        name for name, r in remote.items() if kept_archive(directory, r) is None or not r.digest
    ]
    if loose:
        hint = f"{', '.join(loose)}: not kept or not locked, so that a deploy depends on their hosts: isa charts pull"
        yield Check("chart archives", False, hint, critical=False)


def _capacity(
    environment: Environment, pods: list[PodRequest], selected: Collection[str] | None
) -> Iterator[Check]:
    live_nodes, live_pods = environment.kube.list("v1", "Node"), environment.kube.list("v1", "Pod")

    def shortages_of(placed: list[PodRequest]) -> list[Shortage]:
        return place(placed, free_nodes(live_nodes, live_pods, {pod.workload for pod in placed}))

    size = len(free_nodes(live_nodes, live_pods, set()))
    needed = [pod for pod in pods if selected is None or pod.component in selected]
    shortages = shortages_of(needed)
    if not shortages:
        cpu = sum((pod.requests.get("cpu", Decimal(0)) for pod in needed), Decimal(0))
        memory = sum((pod.requests.get("memory", Decimal(0)) for pod in needed), Decimal(0))
        hint = f"{len(needed)} pods with {cpu.normalize():f} CPU and {int(memory) >> 30} GiB fit on {size} nodes"
        yield Check("capacity", True, hint)
    others = []
    if selected is not None:
        others = [one for one in shortages_of(pods) if one.component not in selected]
    for shortage in (*shortages, *others):
        hint = f"{shortage} (schedulable now: {size})"
        yield Check(
            f"capacity for {shortage.component}", False, hint, critical=shortage not in others
        )
    for workload in sorted({pod.workload for pod in pods if pod.apart}):
        count = sum(1 for pod in pods if pod.workload == workload)
        if count == size:
            hint = (
                f"{workload} has a pod on every node: if a node is drained, one pod stays Pending; {size + 1} "
                "nodes avoid that"
            )
            yield Check("room for a drain", False, hint, critical=False)


def _storage_classes(environment: Environment, pods: list[PodRequest]) -> Iterator[Check]:
    live = {
        item["metadata"]["name"]
        for item in environment.kube.list("storage.k8s.io/v1", "StorageClass")
    }
    made = {
        m["metadata"]["name"] for m in environment.manifests[STORAGE] if m["kind"] == "StorageClass"
    }
    users_by_class: dict[str, set[str]] = {}
    for pod in pods:
        for name, _ in pod.storage:
            users_by_class.setdefault(name, set()).add(pod.component)
    missing = {name: users for name, users in users_by_class.items() if name not in live | made}
    if not missing:
        yield Check("storage classes", True, ", ".join(sorted(users_by_class)))
    for name, users in sorted(missing.items()):
        hint = f"used by {', '.join(sorted(users))}; it exists neither in the cluster nor in storage-classes.yaml"
        yield Check(f"storage class {name or '(none named)'}", False, hint)


def _api_versions(environment: Environment, plan: Plan) -> Iterator[Check]:
    served = set(environment.kube.api_versions())
    users_by_kind: dict[str, set[str]] = {}
    for node in plan.nodes:
        for manifest in _rendered(environment, node):
            users_by_kind.setdefault(f"{manifest['apiVersion']}/{manifest['kind']}", set()).add(
                node.name
            )
    missing = {kind: users for kind, users in users_by_kind.items() if kind not in served}
    if not missing:
        yield Check("API versions", True, f"all {len(users_by_kind)} kinds are served")
    for kind, users in sorted(missing.items()):
        crd = (
            "install the Prometheus operator's CRDs"
            if "monitoring.coreos.com" in kind
            else "install its CRD"
        )
        yield Check(
            f"API {kind}",
            False,
            f"{', '.join(sorted(users))} need this API and the cluster does not serve it: {crd}",
        )


def _secrets(environment: Environment, plan: Plan) -> Iterator[Check]:
    namespace = environment.settings.kubernetes.namespace
    made = {
        spec.name: set(spec.keys) for component in COMPONENTS.values() for spec in component.secrets
    }
    live = {
        s["metadata"]["name"]: set(s.get("data", {}))
        for s in environment.kube.list("v1", "Secret", namespace)
    }
    missing: list[str] = []
    references: set[tuple[str, str]] = set()
    for node in plan.nodes:
        manifests = _rendered(environment, node)
        own = {m["metadata"]["name"] for m in manifests if m["kind"] == "Secret"}
        references |= {
            (name, key) for m in manifests for name, key in secret_references(m) if name not in own
        }
    for name, key in sorted(references):
        have = made.get(name, set()) | live.get(name, set())
        if (name not in made and name not in live) or (key and key not in have):
            missing.append(f"{name}" + (f" key {key}" if key else ""))
    hint = (
        f"Secrets in {namespace} that nothing creates: {', '.join(missing)}"
        if missing
        else f"{len(references)} references"
    )
    yield Check("secrets", not missing, hint)


def secret_references(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Secrets, and keys in them (or ""), without which the pods of a workload do not start."""
    pod = (
        manifest.get("spec", {}).get("template", {}).get("spec")
        if isinstance(manifest.get("spec"), dict)
        else None
    )
    if not pod:
        return
    containers = [*pod.get("containers", []), *pod.get("initContainers", [])]
    mounts = [mount for container in containers for mount in container.get("volumeMounts") or []]
    for container in containers:
        for variable in container.get("env") or []:
            reference = (variable.get("valueFrom") or {}).get("secretKeyRef")
            if reference and not reference.get("optional"):
                yield reference.get("name", ""), reference.get("key", "")
        for source in container.get("envFrom") or []:
            if "secretRef" in source and not source["secretRef"].get("optional"):
                yield source["secretRef"].get("name", ""), ""
    for volume in pod.get("volumes") or []:
        yield from _volume_references(volume)
        yield from _mounted_keys(volume, mounts)
    for reference in pod.get("imagePullSecrets") or []:
        yield reference.get("name", ""), ""


def _volume_references(volume: dict[str, Any]) -> Iterator[tuple[str, str]]:
    sources = [volume, *((volume.get("projected") or {}).get("sources") or [])]
    for source in sources:
        secret = source.get("secret")
        if secret and not secret.get("optional"):
            name = secret.get("secretName") or secret.get("name", "")
            yield name, ""
            for item in secret.get("items") or []:
                yield name, item.get("key", "")


def _mounted_keys(
    volume: dict[str, Any], mounts: list[dict[str, Any]]
) -> Iterator[tuple[str, str]]:
    """Keys of a Secret that are mounted one by one, as Bitnami's charts do, which list no `items`."""
    secret = volume.get("secret")
    if secret and not secret.get("optional") and not secret.get("items"):
        for mount in mounts:
            if mount.get("name") == volume.get("name") and mount.get("subPath"):
                yield secret.get("secretName", ""), mount["subPath"].split("/")[0]


def _orphaned_volumes(environment: Environment, plan: Plan) -> Iterator[Check]:
    """Old volumes whose passwords are lost: new passwords would lock everyone out of the old data."""
    namespace = environment.settings.kubernetes.namespace
    live = {s["metadata"]["name"] for s in environment.kube.list("v1", "Secret", namespace)}
    claims = [
        c["metadata"]["name"]
        for c in environment.kube.list("v1", "PersistentVolumeClaim", namespace)
    ]
    troubles = []
    for node in plan.nodes:
        lost = (
            [s.name for s in COMPONENTS[node.name].secrets if s.name not in live]
            if node.name in COMPONENTS
            else []
        )
        workloads = {
            p.workload for r in node.releases for p in pods_of(node.name, r.manifests) if p.storage
        }
        old = [claim for claim in claims if any(f"-{workload}-" in claim for workload in workloads)]
        if lost and old:
            troubles.append(
                f"{node.name}: Secret {', '.join(lost)} does not exist but volumes {', '.join(old)} do"
            )
    hint = (
        "; ".join(troubles) + ": restore the Secret from the platform backup, or delete the claims"
        if troubles
        else ""
    )
    yield Check(
        "volumes and passwords belong together", not troubles, hint or f"{len(claims)} claims"
    )


def _licences(environment: Environment) -> Iterator[Check]:
    """The switches of the settings against what helmfile.yaml would install."""
    licences = environment.settings.licences
    charts = {release.chart.rpartition("/")[2] for release in environment.releases.of("emqx")}
    chart = "emqx-enterprise" if licences.emqx == "enterprise" else "emqx"
    if charts and charts != {chart}:
        hint = (
            f"licences.emqx is {licences.emqx}, which needs chart {chart}, but helmfile.yaml has "
            f"{', '.join(charts)}: PRODUCTION_DESIGN.md, Licences, describes the change"
        )
        yield Check("licences", False, hint)
    else:
        yield Check("licences", True, f"Neo4j {licences.neo4j}, EMQX {licences.emqx}")


def _object_store(environment: Environment) -> Iterator[Check]:
    store = environment.settings.storage.object
    namespace = environment.settings.kubernetes.control_namespace
    credentials = read_secret(environment.kube, namespace, store.credentials_secret)
    where = f"{store.endpoint}, bucket {store.bucket}"
    if credentials is None:
        hint = (
            f"Secret {namespace}/{store.credentials_secret} (access-key, secret-key) does not exist"
        )
        yield Check("object store", False, f"{where}: {hint}", critical=False)
        return
    trouble = check_endpoint(store, credentials)
    # Deploying needs no object store; the nightly backups do.
    yield Check("object store", not trouble, trouble or where, critical=False)


def _rendered(environment: Environment, node: NodePlan) -> list[Manifest]:
    if node.name in environment.manifests:
        return environment.manifests[node.name]
    return [manifest for release in node.releases for manifest in release.manifests]
