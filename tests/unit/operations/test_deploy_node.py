"""What a deploy does at one node: what it changes, what it undoes, and what it leaves to a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.command import Cancelled
from cluster.helm.records import read_records
from cluster.helm.releases import Release
from cluster.kube import Manifest, Resource
from errors import PermanentError, TemporaryError
from operations.deploy.node import Deployer
from operations.deploy.plan import (
    DRIFTED,
    INSTALL,
    RECOVER,
    RESTART,
    UNCHANGED,
    UNKNOWN,
    UPGRADE,
    NodePlan,
    Plan,
    ReleasePlan,
)
from operations.environment.environment import NAMESPACE, STORAGE
from operations.health import gate
from operations.runner.context import RunContext
from operations.runner.progress import Progress
from operations.runner.walk import NodeResult
from tests.environments import environment_with

from ..stored import NAMESPACE as ENGINES
from ..stored import Stored, settings_of

OLD, NEW = "redis:8.2", "redis:8.4"


def workload(image: str = OLD) -> Manifest:
    template = {"metadata": {}, "spec": {"containers": [{"name": "redis", "image": image}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "redis-cluster", "namespace": ENGINES},
        "spec": {"template": template},
    }


def release(name: str = "redis-cluster") -> Release:
    return Release(name, ENGINES, "redis", "./redis", "", "", (), (), timeout=60, wait=True)


class World(Stored):
    """A cluster, its helm, and what happens in order.

    Attributes:
        happened: the steps.
        notes: what is noted on the Lease.
        previous: what the Lease's last holder noted.
        rendered: what the chart renders.
        breaks: what ends helm's next upgrade.
        recorded: status of what helm installs.
        gate: what ends the wait at the gate.
    """

    def __init__(self) -> None:
        super().__init__()
        self.happened: list[str] = []
        self.notes: list[str] = []
        self.previous = ""
        self.rendered = [workload()]
        self.breaks: Exception | None = None
        self.recorded = "deployed"
        self.gate: BaseException | None = None
        self.declared: list[Manifest] = []
        self.objects["StatefulSet", "redis-cluster"] = workload()

    # ------------------------------------------------------------------ the cluster
    def resource(self, api_version: str, kind: str) -> Resource:
        return Resource(api_version, kind, f"{kind.lower()}s", kind != "StorageClass")

    def version(self) -> str:
        return "v1.36.3"

    def api_versions(self) -> list[str]:
        return ["apps/v1"]

    def apply(self, manifest: Manifest, *, dry_run: bool = False, **_: Any) -> Manifest:
        if dry_run:
            return manifest
        self.happened.append(f"apply {manifest['kind']} {manifest['metadata']['name']}")
        self.objects[manifest["kind"], manifest["metadata"]["name"]] = manifest
        return manifest

    # ------------------------------------------------------------------ helm
    major = 4

    def record(self, revision: int, status: str, *manifests: Manifest) -> None:
        self.helm_release("redis-cluster", revision, status, *manifests or (workload(),))

    @property
    def revision(self) -> int:
        return len(read_records(self, ENGINES).get("redis-cluster", []))

    def template(self, *_: Any, **__: Any) -> list[Manifest]:
        return self.rendered

    def upgrade(self, one: Release, *_: Any, rollback: bool) -> None:
        self.happened.append(f"helm upgrade{'' if rollback else ' without rollback'}")
        if self.breaks:
            raise self.breaks
        self.record(self.revision + 1, self.recorded)

    def rollback(self, name: str, namespace: str, revision: int, *, timeout: int) -> None:
        self.happened.append(f"helm rollback to {revision} within {timeout}")
        self.record(self.revision + 1, "deployed")

    def uninstall(self, name: str, namespace: str, *, timeout: int) -> None:
        self.happened.append(f"helm uninstall within {timeout}")

    # ------------------------------------------------------------------ the deploy
    @contextmanager
    def lease(self, name: str, who: str) -> Iterator[Any]:
        self.happened.append(f"{name} for {who}")
        yield SimpleNamespace(
            note=self.notes.append,
            ensure=lambda: self.happened.append("lease held"),
            previous_operation=self.previous,
        )

    def planned(self, action: str, *, replaced: bool = False, **more: Any) -> ReleasePlan:
        found = read_records(self, ENGINES).get("redis-cluster", [])
        newest = found[-1] if found else None
        return ReleasePlan(
            release(), action, ("503 of the host",), newest, replaced,
            manifests=tuple(self.rendered), **{"good": newest, **more},
        )  # fmt: skip

    def deploy(self, node: str, plan: NodePlan) -> NodeResult:
        components = ["redis"]
        settings = settings_of()
        settings.deploy.ignored_field_managers = ()
        environment = environment_with(
            settings,
            kube=self,
            helm=self,
            lease=self.lease,
            site_of=lambda one: {},
            manifests={NAMESPACE: self.declared, STORAGE: self.declared},
            releases=SimpleNamespace(components=lambda: components),
        )
        made = Deployer(environment, Plan((plan,)), Progress([node]), RunContext("test"))
        return made.deploy(node)

    def bring(self, action: str, **more: Any) -> str:
        """Deploy Redis with this plan of its release; returns the outcome."""
        plan = self.planned(action, **more)
        return self.deploy("redis", NodePlan("redis", action, (), (plan,))).outcome

    def fails(self, action: str, **more: Any) -> str:
        """The reason why that fails."""
        with pytest.raises(PermanentError) as failed:
            self.bring(action, **more)
        return str(failed.value)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()

    def wait(environment: object, context: object, component: str) -> None:
        made.happened.append(f"gate of {component}")
        if made.gate:
            raise made.gate

    monkeypatch.setattr(gate, "wait", wait)
    return made


LEASE = "isa-redis for test"


# ---------------------------------------------------------------------- a release
def test_an_unchanged_release_is_left_alone_and_its_gate_is_awaited(world: World) -> None:
    world.record(1, "deployed")
    assert world.bring(UNCHANGED) == "unchanged"
    assert world.happened == [LEASE, "gate of redis"]


def test_a_release_that_helm_does_not_know_is_installed(world: World) -> None:
    assert world.bring(INSTALL) == "installed"
    assert world.happened == [LEASE, "helm upgrade", "gate of redis"]


def test_a_changed_release_is_upgraded_and_noted_on_the_lease_while_helm_runs(world: World) -> None:
    world.record(1, "deployed")
    assert world.bring(UPGRADE) == "upgraded"
    assert world.notes == ["helm redis-cluster", ""]


def test_a_helm_that_fails_stays_noted_so_that_the_next_run_may_recover_it(world: World) -> None:
    world.record(1, "deployed")
    world.breaks = PermanentError("helm: timed out")
    assert world.fails(UPGRADE) == "helm: timed out"
    assert world.notes == ["helm redis-cluster"]
    assert "gate of redis" not in world.happened


def test_a_chart_that_does_not_render_ends_the_node_before_any_change(world: World) -> None:
    world.record(1, "deployed")
    assert world.fails(UNKNOWN) == "503 of the host"
    assert world.happened == [LEASE]


def test_a_release_that_helm_could_not_record_is_tried_again(world: World) -> None:
    world.recorded = "pending-install"
    with pytest.raises(TemporaryError, match=r"could not record it \(status: pending-install\)"):
        world.bring(INSTALL)
    assert "gate of redis" not in world.happened


# ---------------------------------------------------------------------- what happened since the plan
def test_what_another_run_has_deployed_since_the_plan_is_not_deployed_again(world: World) -> None:
    world.record(1, "deployed", workload("redis:8.0"))
    plan = world.planned(UPGRADE)
    world.record(2, "deployed")
    found = world.deploy("redis", NodePlan("redis", UPGRADE, (), (plan,)))
    assert found.outcome == "unchanged"
    assert world.happened == [LEASE, "gate of redis"]


@pytest.mark.parametrize("status", ["failed", "uninstalled"])
def test_a_revision_that_ended_otherwise_since_the_plan_is_planned_again(
    status: str, world: World
) -> None:
    world.record(1, "deployed")
    plan = world.planned(UNCHANGED)
    world.record(1, status)
    assert world.deploy("redis", NodePlan("redis", UNCHANGED, (), (plan,))).outcome == "upgraded"
    assert "helm upgrade" in world.happened


def test_a_release_that_was_pending_and_is_not_any_more_is_planned_again(world: World) -> None:
    world.record(1, "pending-upgrade")
    plan = world.planned(RECOVER)
    world.record(1, "deployed")
    plan = replace(plan, record=read_records(world, ENGINES)["redis-cluster"][0])
    assert world.deploy("redis", NodePlan("redis", RECOVER, (), (plan,))).outcome == "unchanged"


def test_a_release_that_a_killed_run_left_pending_is_recovered_and_counts_as_changed(
    world: World,
) -> None:
    world.record(1, "deployed")
    world.record(2, "pending-upgrade")
    world.previous = "helm redis-cluster"
    assert world.bring(RECOVER) == "upgraded"
    assert world.happened == [
        LEASE, "lease held", "helm rollback to 1 within 60", "gate of redis",
    ]  # fmt: skip


# ---------------------------------------------------------------------- a gate that stays red
@pytest.fixture
def red(world: World) -> World:
    world.gate = PermanentError("redis is not ready after 600 s.")
    return world


def test_a_change_that_does_not_get_ready_is_rolled_back(red: World) -> None:
    red.record(1, "deployed")
    said = red.fails(UPGRADE)
    assert said == (
        "redis is not ready after 600 s. Release redis-cluster was rolled back to revision 1."
    )
    assert red.happened[-1] == "helm rollback to 1 within 60"
    assert red.notes == ["helm redis-cluster", ""] * 2


def test_a_first_install_that_does_not_get_ready_is_removed_and_its_volumes_are_kept(
    red: World,
) -> None:
    assert "was uninstalled again, its volumes are kept" in red.fails(INSTALL)
    assert red.happened[-1] == "helm uninstall within 60"


def test_a_change_of_the_engines_version_is_never_rolled_back(red: World) -> None:
    red.record(1, "deployed")
    said = red.fails(UPGRADE, replaced=True)
    assert "changes the engine's version and was not rolled back" in said
    assert "previous revision was revision 1 (redis-cluster-1)" in said
    assert red.happened[1:] == ["helm upgrade without rollback", "gate of redis"]


def test_a_change_of_the_engines_version_that_helm_refuses_names_the_ways_on(world: World) -> None:
    world.record(1, "deployed")
    world.breaks = PermanentError("helm: timed out")
    said = world.fails(UPGRADE, replaced=True)
    assert said.startswith("helm: timed out. Release redis-cluster changes the engine's version")
    assert "restore a verified backup into the old version" in said


def test_the_first_version_of_an_engine_has_nothing_before_it(red: World) -> None:
    assert "Its previous revision was nothing." in red.fails(INSTALL, replaced=True)


def test_without_a_revision_that_worked_the_newest_one_is_named(red: World) -> None:
    red.record(1, "failed")
    assert "Its previous revision was revision 1 " in red.fails(UPGRADE, replaced=True, good=None)


def test_a_release_that_only_drifted_is_not_rolled_back_to_the_drift(red: World) -> None:
    red.record(1, "deployed")
    assert "was restored to its declared state" in red.fails(DRIFTED)
    assert not any("rollback to" in one or "uninstall" in one for one in red.happened)


def test_a_restart_that_does_not_help_is_told(red: World) -> None:
    red.record(1, "deployed")
    assert "were restarted to read its settings" in red.fails(RESTART)
    assert red.happened == [LEASE, "gate of redis"]


def test_a_release_that_was_not_changed_is_not_rolled_back(red: World) -> None:
    red.record(1, "deployed")
    assert red.fails(UNCHANGED) == "redis is not ready after 600 s."
    assert red.happened == [LEASE, "gate of redis"]


def test_a_cancelled_run_rolls_nothing_back(world: World) -> None:
    world.record(1, "deployed")
    world.gate = Cancelled("cancelled")
    with pytest.raises(Cancelled):
        world.bring(UPGRADE)
    assert world.happened[-1] == "gate of redis"


# ---------------------------------------------------------------------- objects that isa applies itself
def config(value: str) -> Manifest:
    return {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": ENGINES},
        "data": {"key": value},
    }  # fmt: skip


def test_an_object_that_is_as_declared_is_not_applied(world: World) -> None:
    world.declared = [config("1")]
    world.objects["ConfigMap", "c"] = config("1")
    assert world.deploy(STORAGE, NodePlan(STORAGE, UNCHANGED, ())).outcome == "unchanged"
    assert not any(one.startswith("apply") for one in world.happened)


@pytest.mark.parametrize(("action", "outcome"), [(INSTALL, "installed"), (UPGRADE, "upgraded")])
def test_an_object_that_differs_or_is_absent_is_applied_under_the_lease(
    action: str, outcome: str, world: World
) -> None:
    world.declared = [config("1")]
    if action == UPGRADE:
        world.objects["ConfigMap", "c"] = config("2")
    assert world.deploy(STORAGE, NodePlan(STORAGE, action, ())).outcome == outcome
    assert world.happened[1:3] == ["lease held", "apply ConfigMap c"]
    assert not any(kind == "Secret" for kind, _ in world.objects)  # the other node makes them


def test_secrets_are_made_once_with_the_namespace(world: World) -> None:
    assert world.deploy(NAMESPACE, NodePlan(NAMESPACE, UPGRADE, ())).outcome == "upgraded"
    made = world.objects["Secret", "redis-auth"]["data"]
    assert made["redis-password"]
    assert world.deploy(NAMESPACE, NodePlan(NAMESPACE, UPGRADE, ())).outcome == "unchanged"
    assert world.objects["Secret", "redis-auth"]["data"] == made


def test_an_object_that_the_server_refuses_to_compare_is_not_applied(world: World) -> None:
    def refuse(manifest: Manifest, *, dry_run: bool = False, **_: Any) -> Manifest:
        raise PermanentError("a webhook refuses it")

    world.declared = [{**config("1"), "immutable": False}]
    world.objects["ConfigMap", "c"] = config("1")
    world.apply = refuse  # type: ignore[method-assign]
    assert world.deploy(STORAGE, NodePlan(STORAGE, UNCHANGED, ())).outcome == "unchanged"
