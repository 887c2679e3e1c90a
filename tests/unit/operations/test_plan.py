from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.helm.records import ReleaseRecord
from cluster.kube import Resource
from operations.deploy.plan import ReleasePlan, plan_release

CONFIG: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "nats", "namespace": "isa"},
    "data": {"max_payload": "1MB", "port": "4222"},
}


class Cluster:
    """One live object, one release, and what helm renders of it now."""

    def __init__(self) -> None:
        self.live = copy.deepcopy(CONFIG)
        self.rendered = copy.deepcopy(CONFIG)
        self.ignored: tuple[str, ...] = ()

    def resource(self, api_version: str, kind: str) -> Resource:
        return Resource(api_version, kind, "configmaps", True)

    def get(self, *_: Any) -> dict[str, Any]:
        return copy.deepcopy(self.live)

    def apply(self, manifest: dict[str, Any], *, manager: str, dry_run: bool) -> dict[str, Any]:
        after = copy.deepcopy(self.live)
        after["data"] |= manifest["data"]
        return after

    def json_patch(self, live: dict[str, Any], operations: Any, *, dry_run: bool) -> dict[str, Any]:
        after = copy.deepcopy(live)
        for operation in operations:
            del after["data"][operation["path"].rpartition("/")[2]]
        return after

    def template(self, *_: Any, **__: Any) -> list[dict[str, Any]]:
        return [copy.deepcopy(self.rendered)]

    def add(self, key: str, value: str) -> None:
        """What somebody does with kubectl."""
        self.live["data"][key] = value
        fields: dict[str, Any] = {"f:data": {f"f:{key}": {}}}
        owner = {"manager": "kubectl-patch", "operation": "Update", "fieldsV1": fields}
        self.live["metadata"].setdefault("managedFields", []).append(owner)

    def plan(self, status: str = "deployed") -> ReleasePlan:
        record = ReleaseRecord(
            "nats", 3, status, "nats-1", "1", datetime(2026, 1, 1, tzinfo=UTC), json.dumps(CONFIG)
        )
        deploy = SimpleNamespace(ignored_field_managers=self.ignored)
        platform: Any = SimpleNamespace(
            kube=self,
            helm=self,
            settings=SimpleNamespace(deploy=deploy),
            site_of=lambda release: {},
        )
        release: Any = SimpleNamespace(name="nats", namespace="isa")
        return plan_release(platform, release, [record], "v1.36.3", [])


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_what_is_as_declared_is_unchanged(cluster: Cluster) -> None:
    assert (cluster.plan().action, cluster.plan().reasons) == ("unchanged", ())


def test_an_upgrade_tells_the_old_and_the_new_value_of_each_field(cluster: Cluster) -> None:
    cluster.rendered["data"]["max_payload"] = "2MB"
    plan = cluster.plan()
    assert plan.action == "upgrade"
    assert plan.reasons == ('ConfigMap/nats: data.max_payload "1MB" → "2MB"',)


def test_an_upgrade_tells_what_was_edited_by_hand_beside_it(cluster: Cluster) -> None:
    cluster.rendered["data"]["max_payload"] = "2MB"
    cluster.live["data"]["port"] = "4333"
    cluster.add("extra", "1")
    assert cluster.plan().reasons == (
        'ConfigMap/nats: data.max_payload "1MB" → "2MB"; data.port "4333" → "4222"; '
        'data.extra "1" → (absent) (added by kubectl-patch)',
    )


def test_an_addition_is_drift_unless_its_manager_is_a_sites_own_controller(
    cluster: Cluster,
) -> None:
    cluster.add("extra", "1")
    plan = cluster.plan()
    assert plan.action == "drifted"
    assert plan.reasons == ('ConfigMap/nats: data.extra "1" → (absent) (added by kubectl-patch)',)
    cluster.ignored = ("kubectl-patch",)
    assert cluster.plan().action == "unchanged"


def test_a_failed_revision_is_upgraded_though_nothing_differs(cluster: Cluster) -> None:
    plan = cluster.plan("failed")
    assert (plan.action, plan.reasons) == ("upgrade", ("revision 3 is failed",))
