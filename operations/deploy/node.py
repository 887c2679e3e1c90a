"""Carries out a plan, node by node; every node checks its current state again, so that a rerun resumes by itself.

Flows submit `Deployer.run` as Prefect tasks, `isa deploy --local` as threads.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from cluster.command import Cancelled
from cluster.credentials import ensure_secret
from cluster.helm.client import Helm, with_marks
from cluster.helm.records import read_records
from cluster.helm.releases import Release
from cluster.kube import Kube, Manifest, NotAllowed
from cluster.lease import Lease
from cluster.objects.drift import HELM, UNDECIDED, compare, take_back, with_namespace
from components import COMPONENTS
from errors import PermanentError, TemporaryError
from operations.deploy import restarts
from operations.deploy.plan import (
    DRIFTED,
    INSTALL,
    RECOVER,
    RESTART,
    UNCHANGED,
    UNKNOWN,
    Plan,
    ReleasePlan,
    plan_release,
)
from operations.deploy.recovery import operation, recover
from operations.deploy.reloads import read_again, times_of_reading
from operations.environment.environment import NAMESPACE, STORAGE, Environment
from operations.environment.leases import component_lease
from operations.health import gate
from operations.runner.context import RunContext
from operations.runner.progress import CHECKING, GATE, INSTALLING, Progress
from operations.runner.walk import INSTALLED, UPGRADED, NodeResult
from operations.runner.walk import UNCHANGED as LEFT_ALONE


@dataclass
class Deployer:
    """One run of a deploy.

    Attributes:
        environment: opened.
        plan: what was found before the start.
        progress: where the nodes stand.
        context: of the run.
    """

    environment: Environment
    plan: Plan
    progress: Progress
    context: RunContext

    def __post_init__(self) -> None:
        self._changed: dict[str, bool] = {}  # node → something was changed, in whatever attempt
        self._restarted: list[restarts.Restart] = []
        self._lock = threading.Lock()

    def deploy(self, node: str) -> NodeResult:
        """Bring one node to its declared state and wait for its gate.

        Args:
            node: name in the graph.

        Returns:
            What was done.

        Raises:
            TemporaryError: another attempt may succeed.
            PermanentError: someone has to act.
        """
        self.progress.update(node, CHECKING)
        with self.environment.lease(component_lease(node), self.context.who) as lease:
            bring = self._apply if node in (STORAGE, NAMESPACE) else self._component
            fresh = bring(node, lease)
        outcome = LEFT_ALONE
        if self._changed.get(node):
            outcome = INSTALLED if fresh else UPGRADED
        return NodeResult(node, outcome, round(self.progress.seconds(node), 2))

    # ------------------------------------------------------------------ manifests
    def _apply(self, node: str, lease: Lease) -> bool:
        kube, namespace = self.environment.kube, self.environment.settings.kubernetes.namespace
        ignored = self.environment.settings.deploy.ignored_field_managers
        for manifest in self.environment.manifests[node]:
            difference = compare(kube, manifest, namespace=namespace, ignored=ignored)
            if difference is None or difference.state == UNDECIDED:
                continue
            lease.ensure()
            self.progress.update(
                node, INSTALLING, f"{manifest['kind']} {manifest['metadata']['name']}"
            )
            take_back(kube, manifest, namespace=namespace, ignored=ignored)
            _apply(kube, with_namespace(kube, manifest, namespace))
            self._changed[node] = True
        if node == NAMESPACE:
            self._secrets(node)
        return self.plan.node(node).action == INSTALL

    def _secrets(self, node: str) -> None:
        for component in self.environment.releases.components():
            for spec in COMPONENTS[component].secrets:
                namespace = self.environment.settings.kubernetes.namespace
                if ensure_secret(self.environment.kube, namespace, spec, component):
                    self._changed[node] = True

    # ------------------------------------------------------------------ releases
    def _component(self, node: str, lease: Lease) -> bool:
        plans = [self._look_again(plan, lease) for plan in self.plan.node(node).releases]
        fresh = all(plan.record is None for plan in plans)
        changed = [plan for plan in plans if plan.action != UNCHANGED]
        broken = next((plan for plan in plans if plan.action == UNKNOWN), None)
        if broken:
            raise PermanentError(broken.reasons[0])
        for number, plan in enumerate(changed, 1):
            self._upgrade(plan, lease)
            if plan.restarts and number < len(changed):  # the next release may have another member
                self._wait(node, changed[:number], lease)
        self._wait(node, changed, lease)
        return fresh

    def _wait(self, node: str, changed: Sequence[ReleasePlan], lease: Lease) -> None:
        """Wait at the gate; a change that does not pass it is rolled back."""
        self.progress.update(node, GATE)
        try:
            tell = partial(self.progress.update, node, GATE)
            gate.wait(self.environment, self.context.telling(tell), node)
        except Cancelled:  # nobody knows whether it was any good: it stays, and the next run looks
            raise
        except PermanentError as exc:
            undone = [self._undo(plan, lease) for plan in changed]
            raise PermanentError(" ".join([str(exc), *filter(None, undone)])) from exc

    def _look_again(self, plan: ReleasePlan, lease: Lease) -> ReleasePlan:
        """Return the plan, made again under the Lease: the same as before if nothing has changed since."""
        environment, release = self.environment, plan.release
        history = read_records(environment.kube, release.namespace).get(release.name, [])
        newest = history[-1] if history else None
        if newest is not None and newest.pending:
            self.progress.update(
                release.component,
                INSTALLING,
                f"releasing the lock of {release.name} ({newest.status})",
            )
            recover(environment.helm, lease, release, history)
            self._changed[release.component] = True
        elif _same(newest, plan.record) and plan.action != RECOVER:
            return plan
        history = read_records(environment.kube, release.namespace).get(release.name, [])
        kube = environment.kube
        return plan_release(environment, release, history, kube.version(), kube.api_versions())

    def _upgrade(self, plan: ReleasePlan, lease: Lease) -> None:
        release, kube = plan.release, self.environment.kube
        self.progress.update(release.component, INSTALLING, release.name)
        self._changed[release.component] = True
        reloading = plan.action != RESTART and any(restart.reloads for restart in plan.restarts)
        before = times_of_reading(self.environment, release.component) if reloading else {}
        restarts.announce(kube, plan.restarts, plan.manifests, release.namespace)
        if plan.action != RESTART:
            self._helm(plan, lease)
        for restart in plan.restarts:
            if restart.reloads and reloading and self._read_again(plan, before):
                restarts.withdraw(kube, [restart], release.namespace)
            else:
                self._restart(plan, restart)

    def _read_again(self, plan: ReleasePlan, before: Mapping[str, str]) -> bool:
        component = plan.release.component
        self.progress.update(component, INSTALLING, "its servers reload their settings")
        return read_again(
            self.context, before, lambda: times_of_reading(self.environment, component)
        )

    def _restart(self, plan: ReleasePlan, restart: restarts.Restart) -> None:
        self.progress.update(plan.release.component, INSTALLING, f"{restart.name}: restarting pods")
        restarts.restart(self.environment.kube, [restart], plan.release.namespace)
        self._restarted.append(restart)

    def _helm(self, plan: ReleasePlan, lease: Lease) -> None:
        release = plan.release
        lease.note(operation(release.name))
        edited = self._take_back(plan)
        try:
            self.environment.helm.upgrade(
                release, self.environment.site_of(release), rollback=not plan.version_change
            )
        except PermanentError as exc:
            if plan.version_change:
                raise PermanentError(f"{exc}. {_ways_on(plan)}") from exc
            raise
        self._ensure_recorded(release)
        if (
            edited and self.environment.helm.major < 4
        ):  # it merges, and leaves what it did not put there
            for manifest in edited:
                self.environment.kube.apply(with_marks(manifest, release), manager=HELM)
        lease.note("")

    def _take_back(self, plan: ReleasePlan) -> list[Manifest]:
        """Move fields that others added to the release's objects to helm, which removes them with its next apply."""
        kube, namespace = self.environment.kube, plan.release.namespace
        added = {d.what for d in plan.differences if any(change.manager for change in d.fields)}
        edited = [m for m in plan.manifests if f"{m['kind']}/{m['metadata']['name']}" in added]
        for manifest in edited:
            ignored = self.environment.settings.deploy.ignored_field_managers
            take_back(kube, manifest, namespace=namespace, owner=HELM, ignored=ignored)
        return [with_namespace(kube, manifest, namespace) for manifest in edited]

    def _ensure_recorded(self, release: Release) -> None:
        """Refuse a release whose record is still pending.

        An install that finds no API server for its last word says "failed to record the release" and ends with 0:
        https://github.com/helm/helm/blob/main/pkg/action/install.go.
        """
        newest = read_records(self.environment.kube, release.namespace)[release.name][-1]
        if newest.pending:
            raise TemporaryError(
                f"helm installed {release.name} but could not record it (status: {newest.status}). "
                "The next attempt completes it."
            )

    def _undo(self, plan: ReleasePlan, lease: Lease) -> str:
        """Roll back a change after which the component did not become ready; returns the resulting state as text."""
        release, helm = plan.release, self.environment.helm
        if plan.version_change:
            return _ways_on(plan)
        if plan.action == DRIFTED:
            return f"Release {release.name} was restored to its declared state."
        if plan.action == RESTART:
            return f"Pods of release {release.name} were restarted to read its settings."
        lease.note(operation(release.name))
        reason = _undo(helm, release, plan.good.revision if plan.good else None)
        lease.note("")
        # what has read the new settings reads the old ones again
        again = [restart for restart in plan.restarts if restart in self._restarted]
        restarts.restart(self.environment.kube, again, release.namespace)
        return reason


def _undo(helm: Helm, release: Release, revision: int | None) -> str:
    if revision is None:
        helm.uninstall(release.name, release.namespace, timeout=release.timeout)
        return f"Release {release.name} was uninstalled again, its volumes are kept."
    helm.rollback(release.name, release.namespace, revision, timeout=release.timeout)
    return f"Release {release.name} was rolled back to revision {revision}."


def _same(record: object, expected: object) -> bool:
    return getattr(record, "revision", None) == getattr(expected, "revision", None) and getattr(
        record, "status", None
    ) == getattr(expected, "status", None)


def _ways_on(plan: ReleasePlan) -> str:
    release, record = plan.release, plan.good or plan.record
    before = f"revision {record.revision} ({record.chart})" if record else "nothing"
    return (
        f"Release {release.name} changes the engine's version and was not rolled back, because an older engine may be "
        f"unable to open newer data. Its previous revision was {before}. Options: fix the cause and deploy again; or "
        "restore a verified backup into the old version; or, if the engine's release notes allow it, helm rollback "
        f"{release.name}."
    )


def _apply(kube: Kube, manifest: Manifest) -> None:
    try:
        kube.apply(manifest)
    except NotAllowed as exc:
        what = f"{manifest['kind']} {manifest['metadata']['name']}"
        raise PermanentError(
            f"{what} has to change, and this identity does not have that permission by design. Deploy the node once "
            f"with an administrator's kubeconfig: isa deploy --only namespace. ({exc})"
        ) from exc
