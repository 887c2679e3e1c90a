"""deployments/prefect: what the API server and its controllers make of the manifests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from cluster.kube import Kube, Manifest
from config.loading import ROOT
from sandbox.cluster import Sandbox

from .own_namespaces import BOUNDS, namespaces, own_settings
from .platform_tree import until

pytestmark = pytest.mark.integration


@dataclass
class Applied:
    """The manifests in a control namespace with production's quota and Pod Security.

    Attributes:
        kube: the cluster.
        namespace: that they are in.
        manifests: as applied.
    """

    kube: Kube
    namespace: str
    manifests: list[Manifest]

    def read(self, kind: str, name: str) -> dict[str, Any]:
        (version,) = {
            one["apiVersion"]
            for one in self.manifests
            if (one["kind"], one["metadata"]["name"]) == (kind, name)
        }
        found = self.kube.get(version, kind, name, self.namespace)
        assert found is not None
        return found


@pytest.fixture(scope="module")
def applied(sandbox: Sandbox) -> Iterator[Applied]:
    settings, kube = own_settings(sandbox, "p"), sandbox.kube()
    namespace = settings.kubernetes.control_namespace
    manifests = list(yaml.safe_load_all((ROOT / "deployments/prefect/server.yaml").read_text()))
    with namespaces(kube, settings, BOUNDS):
        for one in manifests:
            one["metadata"]["namespace"] = namespace
            kube.apply(one)
        yield Applied(kube, namespace, manifests)


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment"])
def test_its_pods_are_admitted_under_the_quota_and_the_restricted_standard(
    kind: str, applied: Applied
) -> None:
    (workload,) = (one for one in applied.manifests if one["kind"] == kind)
    name = workload["metadata"]["name"]
    pod = until(
        f"{name} has a pod",
        lambda: applied.kube.list("v1", "Pod", applied.namespace, f"app.kubernetes.io/name={name}"),
    )[0]
    assert pod["spec"]["securityContext"]["runAsNonRoot"]


def test_the_budget_counts_server_and_database_together(applied: Applied) -> None:
    def status() -> dict[str, Any]:
        return applied.read("PodDisruptionBudget", "prefect").get("status", {})  # type: ignore[no-any-return]

    until("the budget counts both", lambda: status().get("expectedPods") == 2)
    assert status()["desiredHealthy"] == 1


def test_the_services_find_their_pods(applied: Applied) -> None:
    for name in ("prefect-server", "prefect-database"):
        selector = applied.read("Service", name)["spec"]["selector"]
        words = ",".join(f"{key}={value}" for key, value in selector.items())
        pods = applied.kube.list("v1", "Pod", applied.namespace, words)
        assert len(pods) == 1
        port = applied.read("Service", name)["spec"]["ports"][0]["port"]
        (container,) = pods[0]["spec"]["containers"]
        assert [one["containerPort"] for one in container["ports"]] == [port]
