"""What a deploy would do with each release and each node, by what helm has recorded and what the cluster has."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.dag import Dag
from cluster.helm.records import ReleaseRecord
from cluster.kube import NotFound, Resource
from components.base import Check
from errors import PermanentError
from operations.deploy.plan import (
    NodePlan,
    Plan,
    ReleasePlan,
    images,
    make_plan,
    missing_secrets,
    plan_objects,
    plan_release,
)
from operations.environment.environment import NAMESPACE, STORAGE

AT = datetime(2026, 1, 1, 2, 3, 4, tzinfo=UTC)


def workload(image: str = "redis:8.2", replicas: int = 6) -> dict[str, Any]:
    pod = {"spec": {"containers": [{"name": "redis", "image": image}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "redis-cluster", "namespace": "isa"},
        "spec": {"replicas": replicas, "template": pod},
    }


def named(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **more}


def revision(number: int, status: str, *manifests: dict[str, Any]) -> ReleaseRecord:
    text = "\n---\n".join(json.dumps(one) for one in manifests or (workload(),))
    return ReleaseRecord("redis-cluster", number, status, "redis-1", "8", AT, text)


class World:
    """A cluster, helm, and what is declared.

    Attributes:
        live: kind and name → object.
        rendered: what helm renders; an exception is raised.
        absent: kinds whose namespace is not there.
    """

    def __init__(self) -> None:
        self.live = {("StatefulSet", "redis-cluster"): workload()}
        self.rendered: list[dict[str, Any]] | Exception = [workload()]
        self.absent: set[str] = set()
        self.manifests: dict[str, list[dict[str, Any]]] = {STORAGE: [], NAMESPACE: []}

    # ------------------------------------------------------------------ the cluster
    def resource(self, api_version: str, kind: str) -> Resource:
        return Resource(
            api_version, kind, f"{kind.lower()}s", kind not in ("Namespace", "StorageClass")
        )

    def get(self, _: str, kind: str, name: str, namespace: str | None = None) -> Any:
        if kind in self.absent:
            raise NotFound(f"{kind} {name}")
        return copy.deepcopy(self.live.get((kind, name)))

    def list(self, _: str, kind: str, *__: Any) -> Any:
        return [copy.deepcopy(one) for (its, _name), one in self.live.items() if its == kind]

    def apply(self, manifest: dict[str, Any], *, manager: str, dry_run: bool) -> dict[str, Any]:
        found: dict[str, Any] = {**self.get("", manifest["kind"], manifest["metadata"]["name"])}
        return found | {key: value for key, value in manifest.items() if key != "metadata"}

    def version(self) -> str:
        return "v1.36.3"

    def api_versions(self) -> tuple[str, ...]:
        return ("v1/Secret",)

    def template(self, release: Any, site: Any, *, kube_version: str, api_versions: Any) -> Any:
        assert (site, kube_version) == ({"site": "values"}, "v1.36.3")
        if isinstance(self.rendered, Exception):
            raise self.rendered
        return copy.deepcopy(self.rendered)

    # ------------------------------------------------------------------ the environment
    @property
    def environment(self) -> Any:
        graph = Dag()
        graph.add(STORAGE)
        graph.add(NAMESPACE, [STORAGE])
        graph.add("redis", [NAMESPACE])
        release = SimpleNamespace(name="redis-cluster", namespace="isa", component="redis")
        return SimpleNamespace(
            kube=self, helm=self, graph=graph, manifests=self.manifests,
            settings=SimpleNamespace(
                deploy=SimpleNamespace(ignored_field_managers=()),
                kubernetes=SimpleNamespace(namespace="isa"),
            ),
            site_of=lambda release: {"site": "values"},
            releases=SimpleNamespace(releases=[release], components=lambda: ["redis"]),
        )  # fmt: skip

    def plan(self, *history: ReleaseRecord) -> ReleasePlan:
        (release,) = self.environment.releases.releases
        return plan_release(self.environment, release, list(history), "v1.36.3", [])


@pytest.fixture
def world() -> World:
    return World()


# ---------------------------------------------------------------------- releases
@pytest.mark.parametrize("history", [(), (revision(1, "uninstalled"),)])
def test_what_is_not_installed_is_installed(history: tuple[Any, ...], world: World) -> None:
    plan = world.plan(*history)
    assert (plan.action, plan.reasons) == ("install", ("is not installed",))
    assert plan.manifests == (workload(),)
    assert plan.record == (history[-1] if history else None)


def test_a_chart_that_cannot_be_rendered_leaves_its_release_unknown(world: World) -> None:
    world.rendered = PermanentError("503 of the host")
    plan = world.plan(revision(1, "deployed"))
    assert (plan.action, plan.reasons, plan.manifests) == ("unknown", ("503 of the host",), ())
    assert plan.record is not None and plan.record.revision == 1


def test_what_is_as_declared_is_left_alone(world: World) -> None:
    plan = world.plan(revision(1, "deployed"))
    assert (plan.action, plan.reasons, plan.differences) == ("unchanged", (), ())
    assert (plan.version_change, plan.good) == (False, None)


def test_a_pending_release_is_recovered_first(world: World) -> None:
    plan = world.plan(revision(1, "deployed"), revision(2, "pending-upgrade"))
    assert plan.action == "recover"
    assert plan.reasons == ("revision 2 has been pending-upgrade since 2026-01-01 02:03:04",)
    assert plan.good is not None and plan.good.revision == 1
    assert not plan.version_change


@pytest.mark.parametrize(
    ("history", "changes"),
    [
        ((revision(1, "deployed", workload("redis:8.2")),), True),
        ((revision(1, "deployed", workload("redis:8.4", 5)),), False),
        # a first try failed and stayed: the one before it is what a rollback would bring back
        (
            (
                revision(1, "superseded", workload("redis:8.2")),
                revision(2, "failed", workload("redis:8.4")),
            ),
            True,
        ),
    ],
)
def test_a_change_of_the_engines_version_is_told_from_any_other(
    history: tuple[ReleaseRecord, ...], changes: bool, world: World
) -> None:
    world.rendered = [workload("redis:8.4")]
    plan = world.plan(*history)
    assert plan.action == "upgrade"
    assert plan.version_change is changes


def test_an_upgrade_knows_which_revision_was_the_last_good_one(world: World) -> None:
    world.rendered = [workload(replicas=7)]
    plan = world.plan(revision(1, "superseded"), revision(2, "deployed"), revision(3, "failed"))
    assert plan.good is not None and plan.good.revision == 2
    assert plan.reasons[0] == "revision 3 is failed"
    assert any("replicas 6 → 7" in words for words in plan.reasons)
    assert [one.what for one in plan.differences] == ["StatefulSet/redis-cluster"]


def test_an_object_that_somebody_deleted_is_drift(world: World) -> None:
    world.live.clear()
    plan = world.plan(revision(1, "deployed"))
    assert plan.action == "drifted"
    assert [(one.what, one.state) for one in plan.differences] == [
        ("StatefulSet/redis-cluster", "missing")
    ]
    assert plan.good is None  # it is brought back, and not rolled back


def test_images_of_all_containers_tell_an_engines_version() -> None:
    pod = {"containers": [{"image": "a"}, {"image": "b"}], "initContainers": [{"image": "c"}]}
    manifest = {"spec": {"template": {"spec": pod}}}
    assert images([manifest, named("Service", "x")]) == {"a", "b", "c"}


# ---------------------------------------------------------------------- nodes
def test_a_node_of_ours_is_installed_where_none_of_it_is_there(world: World) -> None:
    world.manifests[NAMESPACE] = [
        named("Namespace", "isa"),
        named("ConfigMap", "a"),
        named("ConfigMap", "b"),
    ]
    world.live |= {
        ("Secret", "redis-auth"): named("Secret", "redis-auth", data={"redis-password": "x"})
    }
    plan = plan_objects(world.environment, NAMESPACE)
    assert plan.action == "install"
    assert [one.what for one in plan.objects] == ["Namespace/isa", "ConfigMap/a", "ConfigMap/b"]
    world.live["ConfigMap", "a"] = named("ConfigMap", "a")
    assert plan_objects(world.environment, NAMESPACE).action == "upgrade"
    world.live |= {
        ("ConfigMap", "b"): named("ConfigMap", "b"),
        ("Namespace", "isa"): named("Namespace", "isa"),
    }
    plan = plan_objects(world.environment, NAMESPACE)
    assert (plan.action, plan.reasons) == ("unchanged", ())


def test_what_is_in_a_namespace_that_is_not_there_is_missing(world: World) -> None:
    world.manifests[STORAGE] = [named("StorageClass", "fast")]
    world.absent = {"StorageClass"}
    plan = plan_objects(world.environment, STORAGE)
    assert (plan.name, plan.action) == (STORAGE, "install")
    assert [(one.what, one.state) for one in plan.objects] == [("StorageClass/fast", "missing")]


def test_secrets_that_the_deploy_would_make_belong_to_the_namespace(world: World) -> None:
    assert missing_secrets(world.environment) == [("redis-auth", "redis-password")]
    plan = plan_objects(world.environment, NAMESPACE)
    assert [one.what for one in plan.objects] == ["Secret/redis-auth (redis-password)"]
    assert plan.action == "install"
    world.live["Secret", "redis-auth"] = named("Secret", "redis-auth", data={"other": "x"})
    assert missing_secrets(world.environment) == [("redis-auth", "redis-password")]
    world.live["Secret", "redis-auth"]["data"]["redis-password"] = "x"
    assert missing_secrets(world.environment) == []


def test_a_plan_has_all_nodes_in_their_order(world: World) -> None:
    plan = make_plan(world.environment)
    assert [(node.name, node.action) for node in plan.nodes] == [
        (STORAGE, "unchanged"), (NAMESPACE, "install"), ("redis", "install"),
    ]  # fmt: skip
    assert plan.changes
    assert plan.node("redis").releases[0].reasons == ("is not installed",)


# ---------------------------------------------------------------------- what it says
def test_only_a_critical_finding_blocks() -> None:
    small = Check("quota", False, "small")
    plan = Plan((), (small, Check("store", False, "away", critical=False), Check("charts", True)))
    assert plan.blocked == (small,)
    assert plan.document().plain()["blocked"] is True
    assert plan.document().plain()["preflight"][0] == {
        "name": "quota", "ok": False, "critical": True, "unknown": False, "hint": "small", "seconds": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("actions", "changes"), [((), False), (("unchanged",), False), (("unchanged", "drifted"), True)]
)
def test_a_plan_changes_something_if_a_node_is_not_as_declared(
    actions: tuple[str, ...], changes: bool
) -> None:
    plan = Plan(tuple(NodePlan(f"{n}", action, ("why",)) for n, action in enumerate(actions)))
    assert plan.changes is changes
    assert plan.document().plain()["changes"] is changes
    assert [node["reasons"] for node in plan.document().plain()["nodes"]] == [["why"]] * len(
        actions
    )
