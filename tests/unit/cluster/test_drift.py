from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest

from cluster.kube import NotAllowed, Resource, WebhookFailed
from cluster.objects.drift import changed_objects, compare, take_back
from errors import PermanentError

MANIFEST: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "StatefulSet",
    "metadata": {"name": "redis", "namespace": "isa"},
    "spec": {
        "replicas": 6,
        "template": {"requests": {"cpu": "1000m"}, "env": None, "annotations": {}},
    },
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
    "spec": {
        "replicas": 6,
        "template": {"requests": {"cpu": "1"}},
        "podManagementPolicy": "OrderedReady",
    },
    "status": {"readyReplicas": 6},
}


REFUSED = PermanentError(
    "PATCH …: HTTP 422: ValidatingAdmissionPolicy 'none' with binding 'none' denied request: not here"
)


class Server:
    """What `compare` asks of the API server; its dry run merges, and drops what is false."""

    def __init__(self, live: dict[str, Any] | None, refuses: Exception | None = None) -> None:
        self.live = live
        self.refuses = refuses
        self.dry_runs = 0
        self.patches: list[Sequence[dict[str, Any]]] = []

    def resource(self, api_version: str, kind: str) -> Resource:
        return Resource(api_version, kind, "statefulsets", True)

    def get(self, *_: Any) -> dict[str, Any] | None:
        return copy.deepcopy(self.live)

    def apply(self, manifest: dict[str, Any], *, manager: str, dry_run: bool) -> dict[str, Any]:
        assert dry_run and manager == "isa-cloud-plan"
        self.dry_runs += 1
        if self.refuses:
            raise self.refuses
        after = copy.deepcopy(self.live) or {}
        after["spec"]["replicas"] = manifest["spec"]["replicas"]
        after["metadata"]["managedFields"] = [{"manager": manager}]
        return after

    def json_patch(
        self, manifest: dict[str, Any], operations: Sequence[dict[str, Any]], dry_run: bool = False
    ) -> dict[str, Any]:
        """Only keys of maps are ever removed here; `default` comes back by itself."""
        self.patches += [] if dry_run else [operations]
        after = copy.deepcopy(self.live) or {}
        for operation in operations:
            *parents, last = operation["path"].strip("/").split("/")
            place = after
            for key in parents:
                place = place[key]
            if operation["op"] == "remove" and last != "default":
                del place[last]
        return after


def differs(live: dict[str, Any] | None, manifest: dict[str, Any] = MANIFEST, **more: Any) -> str:
    server: Any = Server(live, **more)
    return str(compare(server, manifest, namespace="isa") or "")


def with_additions(**spec: Any) -> dict[str, Any]:
    """The live object after kubectl has added fields to its specification."""
    edited = copy.deepcopy(LIVE)
    edited["spec"] |= spec
    fields: dict[str, Any] = {"f:spec": {f"f:{key}": {} for key in spec}}
    edited["metadata"]["managedFields"] = [
        {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": fields}
    ]
    return edited


def test_a_missing_object_is_missing() -> None:
    assert differs(None) == "StatefulSet/redis: missing"


def test_another_way_to_write_the_same_is_no_drift() -> None:
    assert differs(LIVE) == ""


def test_a_field_that_somebody_changed_is_told_with_both_values() -> None:
    scaled = copy.deepcopy(LIVE)
    scaled["spec"]["replicas"] = 2
    assert differs(scaled) == "StatefulSet/redis: spec.replicas 2 → 6"


def test_what_the_server_adds_costs_no_dry_run() -> None:
    manifest = copy.deepcopy(MANIFEST)
    del manifest["spec"]["template"]["annotations"]
    server: Any = Server(LIVE)
    assert compare(server, manifest, namespace="isa") is None
    assert server.dry_runs == 0


def test_without_the_right_to_write_only_what_is_certain_is_told() -> None:
    scaled = copy.deepcopy(LIVE)
    scaled["spec"]["replicas"] = 2
    lacking = NotAllowed("HTTP 403")
    assert differs(LIVE, refuses=lacking) == ""
    assert differs(scaled, refuses=lacking) == "StatefulSet/redis: spec.replicas 2 → 6"


@pytest.mark.parametrize("refusal", [REFUSED, WebhookFailed("HTTP 500", "guard.example.org")])
def test_no_drift_is_claimed_that_only_a_refused_dry_run_would_show(refusal: Exception) -> None:
    manifest = copy.deepcopy(MANIFEST)
    manifest["spec"]["template"]["hostNetwork"] = False
    server: Any = Server(LIVE, refuses=refusal)
    difference = compare(server, manifest, namespace="isa")
    assert difference is not None
    assert (difference.state, difference.fields) == ("undecided", ())
    assert str(refusal) in str(difference)


def test_what_differs_for_certain_is_drift_though_the_dry_run_is_refused() -> None:
    scaled = copy.deepcopy(LIVE)
    scaled["spec"]["replicas"] = 2
    assert differs(scaled, refuses=REFUSED) == "StatefulSet/redis: spec.replicas 2 → 6"


def test_an_added_field_is_drift_and_is_told_with_who_added_it() -> None:
    added = with_additions(minReadySeconds=7)
    assert differs(added) == (
        "StatefulSet/redis: spec.minReadySeconds 7 → (absent) (added by kubectl-edit)"
    )


def test_a_default_is_no_addition_whoever_owns_it() -> None:
    assert differs(with_additions(default="server's")) == ""


def test_additions_are_given_to_the_owner_in_one_write_of_the_version_that_was_read() -> None:
    server: Any = Server(with_additions(minReadySeconds=7))
    assert take_back(server, MANIFEST, namespace="isa", owner="helm")
    ((version, owned),) = server.patches
    assert version == {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"}
    assert owned["path"] == "/metadata/managedFields"
    assert [(e["manager"], e["operation"]) for e in owned["value"]] == [("helm", "Apply")]


def test_an_object_without_additions_is_not_written() -> None:
    server: Any = Server(LIVE)
    assert not take_back(server, MANIFEST, namespace="isa")
    assert server.patches == []


def test_labels_of_a_namespace_are_also_the_sites() -> None:
    namespace: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "isa", "namespace": "isa"},
    }
    live = copy.deepcopy(namespace)
    live["metadata"] |= {"resourceVersion": "7", "labels": {"team": "x"}}
    owner = {"manager": "kubectl-label", "fieldsV1": {"f:metadata": {"f:labels": {"f:team": {}}}}}
    live["metadata"]["managedFields"] = [owner]
    assert differs(live, namespace) == ""


def test_renderings_differ_field_by_field() -> None:
    other = copy.deepcopy(MANIFEST)
    other["spec"]["replicas"] = 3
    assert [str(d) for d in changed_objects([MANIFEST], [other])] == [
        "StatefulSet/redis: spec.replicas 6 → 3"
    ]
    assert [str(d) for d in changed_objects([], [MANIFEST])] == ["StatefulSet/redis: missing"]
    assert [str(d) for d in changed_objects([MANIFEST], [])] == [
        "StatefulSet/redis: no longer declared"
    ]
    assert changed_objects([MANIFEST], [MANIFEST]) == []


def test_values_of_a_secret_are_never_told() -> None:
    old = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "a"},
        "data": {"x": "aHVudGVy"},
    }
    new = {**old, "data": {"x": "b3RoZXI="}}
    (difference,) = changed_objects([old], [new])
    assert "aHVudGVy" not in f"{difference}{difference.as_json()}"
    assert "b3RoZXI=" not in f"{difference}{difference.as_json()}"


def test_of_many_fields_the_first_are_told() -> None:
    old = {**MANIFEST, "spec": {str(n): 1 for n in range(9)}}
    new = {**MANIFEST, "spec": {str(n): 2 for n in range(9)}}
    (difference,) = changed_objects([old], [new])
    assert str(difference).endswith("and 4 more")
    assert len(difference.as_json()["fields"]) == 9
