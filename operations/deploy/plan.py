"""The plan of a deploy, made before anything is changed.

Each release is rendered as an install would render it and compared with two things: Helm's record of what was applied
last, and the live objects. So the plan distinguishes an upgrade (the declaration changed) from drift (someone changed
the cluster), and an unchanged release is skipped.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from cluster.helm.records import ReleaseRecord, last_good, read_records
from cluster.helm.releases import Release
from cluster.kube import FIELD_MANAGER, NotFound
from cluster.manifests import Manifest, parse_manifests
from cluster.objects.drift import (
    CHANGED,
    HELM,
    MISSING,
    UNDECIDED,
    Difference,
    changed_objects,
    compare,
)
from components import COMPONENTS
from components.base import Check
from errors import PermanentError
from operations.deploy.restarts import Restart, restarts_between, restarts_due, sources_of
from operations.documents import environment as documents
from operations.environment.environment import NAMESPACE, STORAGE, Environment

INSTALL, UPGRADE, DRIFTED, UNCHANGED = "install", "upgrade", "drifted", "unchanged"
RECOVER = "recover"  # a killed helm left the release pending
RESTART = "restart"  # a killed run changed what pods read at their start and did not restart them
UNKNOWN = "unknown"  # the chart cannot be rendered, so nobody knows; the preflight blocks on it
# Renders and comparisons wait for helm and for the API server in turn; more threads than cores keep both busy.
THREADS = 6


@dataclass(frozen=True)
class ReleasePlan:
    """What would happen to one release.

    Attributes:
        release: its declaration.
        action: install, upgrade, drifted, restart, unchanged, recover or unknown.
        reasons: what differs, object by object.
        record: newest revision that Helm has, None if there is none.
        version_change: whether the engine's image changes, against what ran last or what a rollback would bring
            back: such a change is never rolled back.
        manifests: the rendering, for the preflight.
        good: newest revision that worked, None if there is none.
        restarts: workloads whose pods must read changed settings, and no changed template restarts them.
        differences: what would change, object by object; also objects that nobody can compare, since the server
            refuses the dry run.
    """

    release: Release
    action: str
    reasons: tuple[str, ...]
    record: ReleaseRecord | None
    version_change: bool = False
    manifests: tuple[Manifest, ...] = ()
    good: ReleaseRecord | None = None
    restarts: tuple[Restart, ...] = ()
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True)
class NodePlan:
    """What would happen at one node of the deploy."""

    name: str
    action: str
    reasons: tuple[str, ...]
    releases: tuple[ReleasePlan, ...] = ()
    objects: tuple[Difference, ...] = ()

    @property
    def differences(self) -> tuple[Difference, ...]:
        """What would change, of all its releases."""
        return (*self.objects, *(d for release in self.releases for d in release.differences))


@dataclass(frozen=True)
class Plan:
    """The whole plan, nodes in the order in which they would start."""

    nodes: tuple[NodePlan, ...]
    preflight: tuple[Check, ...] = field(default=())

    @property
    def changes(self) -> bool:
        """Whether a deploy would change anything."""
        return any(node.action != UNCHANGED for node in self.nodes)

    @property
    def blocked(self) -> tuple[Check, ...]:
        """Findings that must be fixed first."""
        return tuple(check for check in self.preflight if check.critical and not check.ok)

    def node(self, name: str) -> NodePlan:
        """The plan of one node."""
        return next(node for node in self.nodes if node.name == name)

    def document(self) -> documents.Plan:
        """The plan as `isa plan --json` prints it."""
        return documents.Plan(
            changes=self.changes,
            blocked=bool(self.blocked),
            nodes=tuple(_planned(node) for node in self.nodes),
            preflight=tuple(documents.Check.of(check) for check in self.preflight),
        )


def make_plan(environment: Environment) -> Plan:
    """Compare the declared state with the live one.

    Raises:
        TemporaryError: the API server is away.
    """
    kube = environment.kube
    namespaces = {release.namespace for release in environment.releases.releases}
    records = {name: read_records(kube, name) for name in namespaces}
    version, served = kube.version(), kube.api_versions()
    with ThreadPoolExecutor(THREADS) as pool:
        planned = pool.map(
            lambda release: plan_release(
                environment,
                release,
                records[release.namespace].get(release.name, []),
                version,
                served,
            ),
            environment.releases.releases,
        )
        objects = {
            node: pool.submit(plan_objects, environment, node) for node in (STORAGE, NAMESPACE)
        }
        releases = list(planned)
        nodes = []
        for node in environment.graph.sorted():
            if node in objects:
                nodes.append(objects[node].result())
            else:
                nodes.append(_node(node, [r for r in releases if r.release.component == node]))
    return Plan(tuple(nodes))


def plan_release(
    environment: Environment,
    release: Release,
    history: list[ReleaseRecord],
    kube_version: str,
    served: list[str],
) -> ReleasePlan:
    """Plan one release.

    Args:
        environment: opened.
        release: its declaration.
        history: Helm's revisions of it, oldest first.
        kube_version: of the server.
        served: API versions of the server.
    """
    newest = history[-1] if history else None
    site = environment.site_of(release)
    try:
        rendered = environment.helm.template(
            release, site, kube_version=kube_version, api_versions=served
        )
    except PermanentError as exc:
        return ReleasePlan(release, UNKNOWN, (str(exc),), newest)
    manifests = tuple(rendered)
    if newest is None or newest.status == "uninstalled":
        return ReleasePlan(release, INSTALL, ("is not installed",), newest, manifests=manifests)
    applied, good = parse_manifests(newest.manifest), last_good(history)
    # A first try may have failed and stayed: the second one must not be rolled back to the engine before it either.
    before = [applied, *([parse_manifests(good.manifest)] if good else [])]
    version_change = any(images(old) != images(manifests) for old in before)
    if newest.pending:
        reason = f"revision {newest.revision} has been {newest.status} since {newest.updated:%Y-%m-%d %H:%M:%S}"
        return ReleasePlan(release, RECOVER, (reason,), newest, version_change, manifests, good)
    declared = changed_objects(applied, manifests)
    drift = _differences(environment, manifests, release.namespace, HELM)
    differences = tuple(_together(declared, drift))
    changed = _reasons(differences)
    if newest.status != "deployed":
        changed = (f"revision {newest.revision} is {newest.status}", *changed)
    due = restarts_due(environment.kube, applied, release.namespace)
    restarts = due
    if changed:
        edited = {
            (difference.kind, difference.name)
            for difference in drift
            if difference.state != UNDECIDED
        }
        restarts = restarts_between(applied, manifests, edited | sources_of(due))
    action = RESTART if due else UNCHANGED
    if declared or newest.status != "deployed":
        action = UPGRADE
    elif changed:
        action = DRIFTED
    if action != UPGRADE:
        version_change, good = False, None
    reasons = (*changed, *map(str, restarts))
    return ReleasePlan(
        release, action, reasons, newest, version_change, manifests, good, restarts, differences
    )


def plan_objects(environment: Environment, node: str) -> NodePlan:
    """Plan a node whose manifests isa applies itself."""
    namespace = environment.settings.kubernetes.namespace
    differences = _differences(environment, environment.manifests[node], namespace, FIELD_MANAGER)
    if node == NAMESPACE:
        missing = missing_secrets(environment)
        differences += [Difference("Secret", f"{name} ({key})", MISSING) for name, key in missing]
    reasons = _reasons(differences)
    # Namespaces may have been there before: the first Lease needs one, and a site may make them.
    absent = [
        d for d in differences if d.state == MISSING and d.kind not in ("Namespace", "Secret")
    ]
    declared = [m for m in environment.manifests[node] if m["kind"] != "Namespace"]
    action = INSTALL if len(absent) == len(declared) else UPGRADE
    return NodePlan(node, action if reasons else UNCHANGED, reasons, objects=tuple(differences))


def missing_secrets(environment: Environment) -> list[tuple[str, str]]:
    """Secrets, and keys in them, that the deploy would generate."""
    namespace = environment.settings.kubernetes.namespace
    live = {
        s["metadata"]["name"]: s.get("data", {})
        for s in environment.kube.list("v1", "Secret", namespace)
    }
    return [
        (spec.name, key)
        for name in environment.releases.components()
        for spec in COMPONENTS[name].secrets
        for key in spec.keys
        if key not in live.get(spec.name, {})
    ]


def images(manifests: Iterable[Manifest]) -> set[str]:
    """Images of all containers: what tells a change of engine version from a change of configuration."""
    names: set[str] = set()
    for manifest in manifests:
        pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
        for container in [*pod.get("containers", []), *pod.get("initContainers", [])]:
            names.add(container.get("image", ""))
    return names


def _differences(
    environment: Environment, manifests: Iterable[Manifest], namespace: str, owner: str
) -> list[Difference]:
    ignored, differences = environment.settings.deploy.ignored_field_managers, []
    for manifest in manifests:
        try:
            difference = compare(
                environment.kube, manifest, namespace=namespace, owner=owner, ignored=ignored
            )
        except NotFound:  # the namespace, or the kind, is not there yet
            difference = Difference(manifest["kind"], manifest["metadata"]["name"], MISSING)
        if difference:
            differences.append(difference)
    return differences


def _together(declared: list[Difference], drift: list[Difference]) -> list[Difference]:
    """What is declared otherwise than it was applied, and what differs beside that from what is live."""
    changed = {difference.what: difference for difference in declared}
    for difference in drift:
        known = changed.get(difference.what)
        if known is None:
            changed[difference.what] = difference
        elif known.state == CHANGED:
            beside = [c for c in difference.fields if not any(c.touches(k) for k in known.fields)]
            changed[difference.what] = replace(known, fields=(*known.fields, *beside))
    return list(changed.values())


def _reasons(differences: Iterable[Difference]) -> tuple[str, ...]:
    return tuple(str(difference) for difference in differences if difference.state != UNDECIDED)


def _node(name: str, releases: list[ReleasePlan]) -> NodePlan:
    order = [UNKNOWN, RECOVER, INSTALL, UPGRADE, DRIFTED, RESTART, UNCHANGED]
    action = min((release.action for release in releases), key=order.index)
    reasons = tuple(f"{r.release.name}: {reason}" for r in releases for reason in r.reasons)
    return NodePlan(name, action, reasons, tuple(releases))


def _planned(node: NodePlan) -> documents.PlannedNode:
    differences = (difference.as_json() for difference in node.differences)
    return documents.PlannedNode(
        name=node.name,
        action=node.action,
        reasons=node.reasons,
        differences=tuple(
            documents.ObjectDifference(
                object=one["object"],
                state=one["state"],
                fields=tuple(documents.Change(**change) for change in one["fields"]),
            )
            for one in differences
        ),
        releases=tuple(
            documents.PlannedRelease(name=r.release.name, action=r.action, reasons=r.reasons)
            for r in node.releases
        ),
    )
