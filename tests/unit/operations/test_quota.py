from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.kube import Resource
from components.base import Check
from operations.deploy.plan import INSTALL, NodePlan, Plan, ReleasePlan
from operations.deploy.preflight.capacity import PodRequest, pods_of
from operations.deploy.preflight.quota import check_quota, needs

GIB = Decimal(1 << 30)
POD = PodRequest(
    "redis",
    "redis",
    {"cpu": Decimal(1), "memory": 2 * GIB},
    {},
    storage=(("block", 20 * GIB),),
    limits={"cpu": Decimal(2), "memory": 4 * GIB},
)
SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "redis"}}
WORKLOAD = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "redis"}}


class Server:
    """A namespace with one live quota."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec

    def list(self, api_version: str, kind: str, namespace: str) -> list[dict[str, Any]]:
        assert (kind, namespace) == ("ResourceQuota", "isa")
        return [{"metadata": {"name": "theirs"}, "spec": self.spec}]

    def api_versions(self) -> Sequence[str]:
        return ["v1/Service", "apps/v1/StatefulSet"]

    def resource(self, api_version: str, kind: str) -> Resource:
        return Resource(api_version, kind, f"{kind.lower()}s", True)


def check(hard: dict[str, str], pods: int = 3, **spec: Any) -> Check:
    server = Server({"hard": hard, **spec})
    settings = SimpleNamespace(kubernetes=SimpleNamespace(namespace="isa"))
    platform: Any = SimpleNamespace(kube=server, settings=settings, manifests={"namespace": []})
    release: Any = SimpleNamespace(name="redis", history=10)
    planned = ReleasePlan(release, INSTALL, (), None, manifests=(SERVICE, WORKLOAD))
    plan = Plan((NodePlan("engine", INSTALL, (), (planned,)),))
    (found,) = check_quota(platform, plan, [POD] * pods)
    return found


@pytest.mark.parametrize(
    ("resource", "allowed", "needed"),
    [
        ("pods", "2", "3"),
        ("count/pods", "2", "3"),
        ("persistentvolumeclaims", "2", "3"),
        ("count/persistentvolumeclaims", "2", "3"),
        ("block.storageclass.storage.k8s.io/persistentvolumeclaims", "2", "3"),
        ("block.storageclass.storage.k8s.io/requests.storage", "59Gi", "60Gi"),
        ("requests.storage", "59Gi", "60Gi"),
        ("cpu", "2", "3"),
        ("requests.cpu", "2", "3"),
        ("requests.memory", "5Gi", "6Gi"),
        ("limits.cpu", "5", "6"),
        ("limits.memory", "11Gi", "12Gi"),
        ("services", "0", "1"),
        ("count/services", "0", "1"),
        ("count/statefulsets.apps", "0", "1"),
        ("count/secrets", "9", "10"),
    ],
)
def test_a_quota_that_is_too_small_is_told_with_both_figures(
    resource: str, allowed: str, needed: str
) -> None:
    found = check({resource: allowed})
    assert not found.ok and found.critical
    assert found.hint == f"theirs: {resource} allows {allowed}, but {needed} are needed"


def test_a_quota_that_is_just_large_enough_is_no_trouble() -> None:
    assert check({"pods": "3", "count/pods": "3", "limits.cpu": "6"}).ok


@pytest.mark.parametrize(
    "scope",
    [
        {"scopes": ["Terminating"]},
        {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass"}]}},
    ],
)
def test_a_quota_of_other_pods_is_not_ours(scope: dict[str, Any]) -> None:
    assert check({"pods": "0"}, **scope).ok


def test_limits_are_read_from_the_rendering() -> None:
    resources = {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "1Gi"}}
    spec = {"containers": [{"resources": resources}, {}], "initContainers": [{"resources": {}}]}
    manifest = {
        "kind": "Deployment",
        "metadata": {"name": "x"},
        "spec": {"template": {"spec": spec}},
    }
    (pod,) = pods_of("x", [manifest])
    assert pod.limits == {"cpu": Decimal("0.5"), "memory": GIB}
    assert needs([pod, pod])["limits.memory"] == 2 * GIB
