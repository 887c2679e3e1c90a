"""deployments/prefect: what the API server and its controllers make of the manifests."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from cluster.kube import Kube, Manifest
from config.loading import ROOT, load
from operations.environment.render import render_manifest
from sandbox.cluster import Sandbox

from .platform_tree import until

pytestmark = pytest.mark.integration

BOUNDS = {"Namespace", "LimitRange", "ResourceQuota", "ServiceAccount"}


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
    name = f"p-{uuid.uuid4().hex[:6]}"
    settings = load("sandbox", environ=sandbox.settings_environ())
    own = {"namespace": name, "control_namespace": f"{name}-c", "verify_namespace": f"{name}-v"}
    kubernetes = settings.kubernetes.model_copy(update=own)
    settings = settings.model_copy(update={"kubernetes": kubernetes})
    kube = sandbox.kube()
    for one in render_manifest(settings.platform.namespace_manifest, settings):
        if one["kind"] in BOUNDS:
            kube.apply(one)
    text = (ROOT / "deployments/prefect/server.yaml").read_text()
    manifests = list(yaml.safe_load_all(text))
    for one in manifests:
        one["metadata"]["namespace"] = f"{name}-c"
        kube.apply(one)
    yield Applied(kube, f"{name}-c", manifests)
    for namespace in (name, f"{name}-c", f"{name}-v"):
        kube.delete("v1", "Namespace", namespace)


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
