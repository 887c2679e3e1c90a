"""What a deploy is refused for before its first change, and what it is only warned of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.kube import Manifest, Resource
from components.base import Check
from errors import TemporaryError
from operations.deploy.plan import INSTALL, UNKNOWN, NodePlan, Plan, ReleasePlan
from operations.deploy.preflight.checks import preflight
from operations.environment.environment import NAMESPACE, STORAGE

ENGINES, CONTROL, PROOFS = "engines", "control", "proofs"
GIB = 1 << 30


def named(kind: str, name: str, version: str = "v1", **more: Any) -> Manifest:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **more}


def engine(
    name: str = "redis-cluster", pods: int = 2, storage: str = "fast", **pod: Any
) -> Manifest:
    """A StatefulSet of one core and a GiB a pod."""
    container = {
        "name": "engine",
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
        **pod.pop("container", {}),
    }
    claim = {
        "metadata": {"name": "data"},
        "spec": {"storageClassName": storage, "resources": {"requests": {"storage": "8Gi"}}},
    }
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container], **pod}}
    spec = {"replicas": pods, "template": template, "volumeClaimTemplates": [claim]}
    return named("StatefulSet", name, "apps/v1", spec=spec)


APART = {
    "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "redis-cluster"}}}
        ]
    }
}  # fmt: skip


@dataclass
class World:
    """A cluster, an environment and what it declares.

    Attributes:
        live: kind → objects.
        manifests: of the release of Redis.
        charts: charts of releases, by component.
        licence: of EMQX.
        broken: kinds that cannot be listed.
        served: kinds that the cluster serves.
    """

    directory: Path
    live: dict[str, list[Manifest]] = field(default_factory=dict)
    manifests: tuple[Manifest, ...] = field(default_factory=lambda: (engine(),))
    action: str = INSTALL
    charts: dict[str, str] = field(default_factory=lambda: {"emqx": "repo/emqx"})
    licence: str = "community"
    broken: set[str] = field(default_factory=set)
    served: list[str] = field(default_factory=lambda: ["apps/v1/StatefulSet", "v1/Secret"])
    storage: list[Manifest] = field(default_factory=list)
    remote: Sequence[Any] = ()

    def __post_init__(self) -> None:
        self.live = {
            "Node": [self.node(n) for n in range(3)],
            "StorageClass": [named("StorageClass", "fast")],
            **self.live,
        }

    @staticmethod
    def node(number: int) -> Manifest:
        room = {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "100Gi"}
        return named("Node", f"node-{number}", spec={}, status={"allocatable": room, "conditions": [
            {"type": "Ready", "status": "True"}]})  # fmt: skip

    # ------------------------------------------------------------------ the cluster
    def get(self, _: str, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        return next(
            (one for one in self.live.get(kind, []) if one["metadata"]["name"] == name), None
        )

    def list(self, _: str, kind: str, namespace: str | None = None, *__: Any) -> list[Manifest]:
        if kind in self.broken:
            raise TemporaryError(f"{kind}: the API server is away")
        return self.live.get(kind, [])

    def api_versions(self) -> Sequence[str]:
        return self.served

    def resource(self, api_version: str, kind: str) -> Resource:
        return Resource(api_version, kind, f"{kind.lower()}s", True)

    def apply(self, manifest: Manifest, **_: Any) -> Manifest:
        return manifest

    # ------------------------------------------------------------------ the environment
    def ask(self, selected: Sequence[str] | None = None) -> dict[str, Check]:
        store = SimpleNamespace(
            endpoint="https://s3.example", bucket="backups", credentials_secret="store-key"
        )
        settings = SimpleNamespace(
            kubernetes=SimpleNamespace(
                namespace=ENGINES, control_namespace=CONTROL, verify_namespace=PROOFS
            ),
            charts=SimpleNamespace(directory=self.directory),
            licences=SimpleNamespace(emqx=self.licence, neo4j="community"),
            storage=SimpleNamespace(object=store),
        )
        releases = SimpleNamespace(
            releases=self.remote,
            of=lambda name: (
                [SimpleNamespace(chart=self.charts[name])] if name in self.charts else []
            ),
        )
        platform: Any = SimpleNamespace(
            settings=settings, kube=self, helm=SimpleNamespace(major=3), releases=releases,
            manifests={NAMESPACE: [], STORAGE: self.storage},
        )  # fmt: skip
        release: Any = SimpleNamespace(
            name="redis-cluster", component="redis", namespace=ENGINES, history=10
        )
        planned = ReleasePlan(
            release, self.action, ("503 of the host",), None, manifests=self.manifests
        )
        plan = Plan((NodePlan("redis", self.action, (), (planned,)),))
        return {check.name: check for check in preflight(platform, plan, selected)}

    def bad(self) -> dict[str, Check]:
        return {
            name: check for name, check in self.ask().items() if not check.ok and check.critical
        }


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_plan_that_nothing_is_in_the_way_of(world: World) -> None:
    found = world.ask()
    assert [name for name, check in found.items() if not check.ok] == ["object store"]
    assert {name: check.hint for name, check in found.items()} == {
        "Helm": "version 3",
        "charts": "all 1 render",
        "capacity": "2 pods with 2 CPU and 2 GiB fit on 3 nodes",
        "storage classes": "fast",
        "quota": "no quota",
        "API versions": "all 1 kinds are served",
        "secrets": "0 references",
        "volumes and passwords belong together": "0 claims",
        "changes in place": "1 objects would be applied",
        "licences": "Neo4j community, EMQX community",
        "object store": (
            "https://s3.example, bucket backups: Secret control/store-key (access-key, secret-key) does not exist"
        ),
    }
    assert not found["object store"].critical  # a deploy needs none
    assert all(check.seconds >= 0 for check in found.values())


def test_a_question_that_cannot_be_asked_is_a_finding_and_stops_no_other(world: World) -> None:
    world.broken = {"Node"}
    found = world.bad()
    assert {name: check.hint for name, check in found.items()} == {
        "capacity": "Node: the API server is away"
    }
    assert "storage classes" in world.ask()


@pytest.mark.parametrize("name", [ENGINES, CONTROL, PROOFS])
def test_nothing_can_be_made_in_a_namespace_that_is_being_deleted(name: str, world: World) -> None:
    conditions = [
        {"status": "True", "message": "2 claims are left"},
        {"status": "False", "message": "all is well"},
        {"status": "True"},
        {"status": "True", "message": "a finalizer"},
    ]
    status = {"phase": "Terminating", "conditions": conditions}
    world.live["Namespace"] = [named("Namespace", name, status=status)]
    (check,) = world.bad().values()
    assert check.name == f"namespace {name}"
    assert check.hint == "is being deleted (2 claims are left; a finalizer): wait until it is gone"
    status["conditions"] = []
    assert "(no finalizer is known)" in world.bad()[f"namespace {name}"].hint
    status["phase"] = "Active"
    assert world.bad() == {}


# ---------------------------------------------------------------------- charts
def test_a_chart_that_cannot_be_rendered_blocks_whoever_is_to_be_changed(world: World) -> None:
    world.action, world.manifests = UNKNOWN, ()
    check = world.ask()["chart of redis-cluster"]
    assert (check.ok, check.critical, check.hint) == (False, True, "503 of the host")
    assert world.ask(["redis"])["chart of redis-cluster"].critical
    assert not world.ask(["nats"])["chart of redis-cluster"].critical
    assert "charts" not in world.ask()


def test_charts_that_are_not_kept_or_not_locked_are_a_warning(world: World) -> None:
    def remote(name: str, digest: str) -> Any:
        return SimpleNamespace(
            locked_as=name, version="1", digest=digest, archive=f"{name}.tgz", chart=f"repo/{name}", name=name
        )  # fmt: skip

    world.remote = [remote("redis-1", ""), SimpleNamespace(locked_as="local", version="")]
    check = world.ask()["chart archives"]
    assert (check.ok, check.critical) == (False, False)
    assert check.hint.startswith("redis-1: not kept or not locked, so that a deploy depends on")
    assert "isa charts pull" in check.hint


# ---------------------------------------------------------------------- room
def test_pods_that_fit_nowhere_are_named_with_the_nodes_that_there_are(world: World) -> None:
    world.manifests = (engine(pods=13),)
    (check,) = world.bad().values()
    assert check.name == "capacity for redis"
    assert check.hint.endswith("(schedulable now: 3)")
    assert "capacity" not in world.ask()


def test_room_that_another_component_lacks_is_told_and_does_not_block_the_selected_ones(
    world: World,
) -> None:
    world.manifests = (engine(pods=13),)
    found = world.ask(["nats"])
    assert found["capacity"].ok
    check = found["capacity for redis"]
    assert (check.ok, check.critical) == (False, False)
    assert world.ask(["redis"])["capacity for redis"].critical


def test_a_pod_on_every_node_leaves_no_room_for_a_drain(world: World) -> None:
    world.manifests = (engine(pods=3, affinity=APART),)
    check = world.ask()["room for a drain"]
    assert (check.ok, check.critical) == (False, False)
    assert check.hint == (
        "redis-cluster has a pod on every node: if a node is drained, one pod stays Pending; 4 nodes avoid that"
    )
    world.manifests = (engine(pods=2, affinity=APART),)
    assert "room for a drain" not in world.ask()
    world.manifests = (engine(pods=3),)
    assert "room for a drain" not in world.ask()


@pytest.mark.parametrize(("storage", "name"), [("slow", "slow"), ("", "(none named)")])
def test_a_storage_class_that_nobody_has_is_named(storage: str, name: str, world: World) -> None:
    world.manifests = (engine(storage=storage),)
    check = world.bad()[f"storage class {name}"]
    assert check.hint.startswith("used by redis; it exists neither in the cluster nor in")
    assert "storage classes" not in world.ask()


def test_a_storage_class_that_the_deploy_makes_is_there(world: World) -> None:
    world.live["StorageClass"] = []
    world.storage = [named("StorageClass", "fast"), named("ConfigMap", "x")]
    assert world.ask()["storage classes"].ok


# ---------------------------------------------------------------------- what the cluster serves
def test_a_kind_that_the_cluster_does_not_serve_is_named_with_its_cure(world: World) -> None:
    monitor = named("ServiceMonitor", "redis", "monitoring.coreos.com/v1")
    world.manifests = (engine(), monitor, named("Cache", "redis", "example.com/v1"))
    found = world.bad()
    prometheus = found["API monitoring.coreos.com/v1/ServiceMonitor"].hint
    assert prometheus.startswith("redis need this API and the cluster does not serve it: ")
    assert "install the Prometheus operator's CRDs" in prometheus
    assert found["API example.com/v1/Cache"].hint.endswith(": install its CRD")
    assert "API versions" not in world.ask()


# ---------------------------------------------------------------------- Secrets
def of_secret(name: str, key: str, **more: Any) -> dict[str, Any]:
    reference = {"secretKeyRef": {"name": name, "key": key, **more}}
    return {"container": {"env": [{"name": "PASSWORD", "valueFrom": reference}]}}


def test_a_secret_that_nobody_makes_is_named(world: World) -> None:
    world.manifests = (engine(**of_secret("theirs", "password")),)
    (check,) = world.bad().values()
    assert check.name == "secrets"
    assert check.hint == f"Secrets in {ENGINES} that nothing creates: theirs key password"


def test_a_secret_is_there_that_the_cluster_the_release_or_the_deploy_has(world: World) -> None:
    world.manifests = (engine(**of_secret("redis-auth", "redis-password")),)  # the deploy's own
    assert world.ask()["secrets"].hint == "1 references"
    world.manifests = (engine(**of_secret("theirs", "password")), named("Secret", "theirs"))
    assert world.bad() == {}
    world.manifests = (engine(**of_secret("theirs", "password")),)
    world.live["Secret"] = [named("Secret", "theirs", data={"password": "eA=="})]
    assert world.bad() == {}


def test_a_key_that_a_secret_has_not_is_named(world: World) -> None:
    world.manifests = (
        engine(**of_secret("theirs", "token")),
        engine("b", **of_secret("redis-auth", "moon")),
    )
    world.live["Secret"] = [named("Secret", "theirs", data={"password": "eA=="})]
    assert world.bad()["secrets"].hint.endswith(": redis-auth key moon, theirs key token")


def test_a_secret_that_is_optional_is_not_missed(world: World) -> None:
    world.manifests = (engine(**of_secret("theirs", "token", optional=True)),)
    assert world.bad() == {}


def test_a_whole_secret_is_wanted_by_its_name(world: World) -> None:
    source = {"envFrom": [{"secretRef": {"name": "theirs"}}]}
    world.manifests = (engine(container=source, imagePullSecrets=[{"name": "registry"}]),)
    assert world.bad()["secrets"].hint.endswith(": registry, theirs")


def test_volumes_whose_passwords_are_gone_get_no_new_ones(world: World) -> None:
    claims = ["data-redis-cluster-0", "data-redis-cluster-1", "data-nats-0"]
    world.live["PersistentVolumeClaim"] = [named("PersistentVolumeClaim", n) for n in claims]
    (check,) = world.bad().values()
    assert check.name == "volumes and passwords belong together"
    assert check.hint == (
        "redis: Secret redis-auth does not exist but volumes data-redis-cluster-0, "
        "data-redis-cluster-1 do: restore the Secret from the platform backup, or delete the claims"
    )
    world.live["Secret"] = [named("Secret", "redis-auth")]
    assert world.ask()["volumes and passwords belong together"].hint == "3 claims"


@pytest.mark.parametrize(
    ("licence", "chart", "ok"),
    [
        ("community", "repo/emqx", True),
        ("enterprise", "repo/emqx-enterprise", True),
        ("enterprise", "repo/emqx", False),
        ("community", "repo/emqx-enterprise", False),
    ],
)
def test_the_licence_of_the_settings_is_that_of_the_chart(
    licence: str, chart: str, ok: bool, world: World
) -> None:
    world.licence, world.charts = licence, {"emqx": chart}
    check = world.ask()["licences"]
    assert check.ok is ok
    if not ok:
        assert f"licences.emqx is {licence}, which needs chart emqx" in check.hint
        assert f"but helmfile.yaml has {chart.partition('/')[2]}" in check.hint


def test_without_emqx_its_licence_is_no_question(world: World) -> None:
    world.licence, world.charts = "enterprise", {}
    assert world.ask()["licences"].ok
