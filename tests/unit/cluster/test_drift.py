from __future__ import annotations

import copy
from typing import Any

import pytest

from cluster.drift import compare, same_objects
from cluster.kube import Resource
from errors import PermanentError

MANIFEST: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "StatefulSet",
    "metadata": {"name": "redis", "namespace": "isa"},
    "spec": {"replicas": 6, "template": {"cpu": "1000m", "env": None, "annotations": {}}},
}
LIVE: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "StatefulSet",
    "metadata": {
        "name": "redis",
        "namespace": "isa",
        "uid": "1",
        "resourceVersion": "7",
        "generation": 2,
    },
    "spec": {"replicas": 6, "template": {"cpu": "1"}, "podManagementPolicy": "OrderedReady"},
    "status": {"readyReplicas": 6},
}


class Server:
    """What `compare` asks of the API server; its dry run merges, and knows that 1000m is 1."""

    def __init__(self, live: dict[str, Any] | None, refuses: bool = False) -> None:
        self.live = live
        self.refuses = refuses
        self.dry_runs = 0

    def resource(self, api_version: str, kind: str) -> Resource:
        return Resource(api_version, kind, "statefulsets", True)

    def get(self, *_: Any) -> dict[str, Any] | None:
        return self.live

    def apply(self, manifest: dict[str, Any], *, manager: str, dry_run: bool) -> dict[str, Any]:
        assert dry_run and manager == "isa-cloud-plan"
        self.dry_runs += 1
        if self.refuses:
            raise PermanentError("HTTP 403")
        after = copy.deepcopy(self.live) or {}
        after["spec"]["replicas"] = manifest["spec"]["replicas"]
        after["metadata"]["managedFields"] = [{"manager": manager}]
        return after


def differs(live: dict[str, Any] | None, manifest: dict[str, Any] = MANIFEST, **more: Any) -> str:
    return str(compare(Server(live, **more), manifest, namespace="isa") or "")  # type: ignore[arg-type]


def test_a_missing_object_is_missing() -> None:
    assert differs(None) == "StatefulSet/redis: missing"


def test_another_way_to_write_the_same_is_no_drift() -> None:
    assert differs(LIVE) == ""


def test_a_field_that_somebody_changed_is_named_by_its_path() -> None:
    scaled = copy.deepcopy(LIVE)
    scaled["spec"]["replicas"] = 2
    assert differs(scaled) == "StatefulSet/redis: spec.replicas"


def test_what_the_server_adds_costs_no_dry_run() -> None:
    manifest = copy.deepcopy(MANIFEST)
    manifest["spec"]["template"]["cpu"] = "1"
    server = Server(LIVE)
    assert compare(server, manifest, namespace="isa") is None  # type: ignore[arg-type]
    assert server.dry_runs == 0


def test_without_the_right_to_write_the_plain_difference_is_told() -> None:
    assert differs(LIVE, refuses=True) == "StatefulSet/redis: spec.template.cpu"


@pytest.mark.parametrize("change", ["added", "removed", "changed"])
def test_renderings_differ_by_whole_objects(change: str) -> None:
    other = copy.deepcopy(MANIFEST)
    other["spec"]["replicas"] = 3
    left, right = {
        "added": ([], [MANIFEST]),
        "removed": ([MANIFEST], []),
        "changed": ([MANIFEST], [other]),
    }[change]
    assert same_objects(left, right) == ["StatefulSet/redis"]
    assert same_objects([MANIFEST], [MANIFEST]) == []
