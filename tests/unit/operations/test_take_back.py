"""How one release is brought back to what it declares after somebody added to its objects."""

from __future__ import annotations

import base64
import copy
import json
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.kube import NotAllowed, Resource
from cluster.objects.drift import Difference
from cluster.objects.fields import Change
from errors import PermanentError
from operations.deploy.node import Deployer
from operations.deploy.plan import DRIFTED, NodePlan, Plan, ReleasePlan
from operations.runner.context import RunContext

CONFIG: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "nats-config"},
    "data": {"port": "4222"},
}


class Cluster:
    """One ConfigMap of a release, to which kubectl added a key, and helm's record of the release."""

    def __init__(self, major: int) -> None:
        self.major = major
        self.calls: list[str] = []
        self.applied: list[dict[str, Any]] = []
        self.live = copy.deepcopy(CONFIG)
        self.live["metadata"] |= {"namespace": "isa", "resourceVersion": "7"}
        self.live["data"]["extra"] = "1"
        fields: dict[str, Any] = {"f:data": {"f:extra": {}}}
        owner = {"manager": "kubectl-patch", "operation": "Update", "fieldsV1": fields}
        self.live["metadata"]["managedFields"] = [owner]

    def resource(self, api_version: str, kind: str) -> Resource:
        return Resource(api_version, kind, "configmaps", True)

    def get(self, *_: Any) -> dict[str, Any]:
        return copy.deepcopy(self.live)

    def json_patch(self, live: dict[str, Any], operations: list[dict[str, Any]]) -> dict[str, Any]:
        (owned,) = [o["value"] for o in operations if o["path"] == "/metadata/managedFields"]
        self.calls.append(f"give to {owned[0]['manager']}")
        return live

    def apply(self, manifest: dict[str, Any], *, manager: str = "isa-cloud") -> dict[str, Any]:
        self.calls.append(f"apply as {manager}")
        self.applied.append(manifest)
        return manifest

    def list(self, *_: Any) -> Any:
        info = {"status": "deployed", "last_deployed": "2026-01-01T00:00:00+00:00"}
        chart = {"metadata": {"name": "nats", "version": "1"}}
        record = {"name": "nats", "version": 1, "info": info, "chart": chart}
        data = base64.b64encode(base64.b64encode(json.dumps(record).encode())).decode()
        return [{"data": {"release": data}}]

    # helm
    def upgrade(self, *_: Any, rollback: bool) -> None:
        self.calls.append("helm upgrade")


def bring_back(cluster: Cluster, *fields: Change) -> None:
    release: Any = SimpleNamespace(name="nats", namespace="isa", component="nats")
    differences = (Difference("ConfigMap", "nats-config", fields=fields),)
    planned = ReleasePlan(release, DRIFTED, (), None, manifests=(CONFIG,), differences=differences)
    settings = SimpleNamespace(deploy=SimpleNamespace(ignored_field_managers=()))
    platform: Any = SimpleNamespace(
        kube=cluster, helm=cluster, settings=settings, site_of=lambda release: {}
    )
    progress: Any = SimpleNamespace(update=lambda *_: None)
    lease: Any = SimpleNamespace(note=lambda words: None)
    plan = Plan((NodePlan("nats", DRIFTED, (), (planned,)),))
    Deployer(platform, plan, progress, RunContext("test"))._upgrade(planned, lease)


ADDED = Change("data.extra", "1", None, "kubectl-patch")


def test_what_others_added_is_given_to_helm_before_it_applies() -> None:
    cluster = Cluster(major=4)
    bring_back(cluster, ADDED)
    assert cluster.calls == ["give to helm", "helm upgrade"]


def test_helm_3_merges_so_we_apply_what_it_leaves() -> None:
    cluster = Cluster(major=3)
    bring_back(cluster, ADDED)
    assert cluster.calls == ["give to helm", "helm upgrade", "apply as helm"]
    metadata = cluster.applied[0]["metadata"]
    assert metadata["namespace"] == "isa"
    assert metadata["labels"] == {"app.kubernetes.io/managed-by": "Helm"}
    assert metadata["annotations"]["meta.helm.sh/release-name"] == "nats"


def test_an_edited_value_is_helms_to_put_right() -> None:
    cluster = Cluster(major=4)
    bring_back(cluster, Change("data.port", "4333", "4222"))
    assert cluster.calls == ["helm upgrade"]


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (NotAllowed("HTTP 403: cannot patch"), "Deploy the node once with an administrator's"),
        (PermanentError("HTTP 403: exceeded quota: small"), "^HTTP 403: exceeded quota: small$"),
    ],
)
def test_only_a_lacking_right_sends_for_an_administrator(refusal: Exception, words: str) -> None:
    cluster = Cluster(major=4)
    settings = SimpleNamespace(
        kubernetes=SimpleNamespace(namespace="isa"),
        deploy=SimpleNamespace(ignored_field_managers=()),
    )

    def apply(manifest: dict[str, Any], **how: Any) -> dict[str, Any]:
        if how.get("dry_run"):
            return {**manifest, "data": {"port": "4222"}}
        raise refusal

    cluster.apply = apply  # type: ignore[method-assign]
    cluster.json_patch = lambda live, operations, **_: {}  # type: ignore[method-assign]
    platform: Any = SimpleNamespace(
        kube=cluster, settings=settings, manifests={"namespace": [CONFIG]}
    )
    progress: Any = SimpleNamespace(update=lambda *_: None)
    lease: Any = SimpleNamespace(ensure=lambda: None)
    deployer = Deployer(
        platform, Plan((NodePlan("namespace", "upgrade", ()),)), progress, RunContext("test")
    )
    with pytest.raises(PermanentError, match=words):
        deployer._apply("namespace", lease)
