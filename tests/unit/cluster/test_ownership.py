"""Owners of fields as a real API server (1.36) noted them after helm and kubectl had been at work."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cluster.objects.ownership import additions, has_more, removal, taken_over

CONTAINER = 'k:{"name":"a"}'
POD: dict[str, Any] = {
    "containers": [{"name": "a", "image": "x:1", "env": [{"name": "E", "value": "1"}]}]
}
MANIFEST: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "StatefulSet",
    "metadata": {"name": "tiny"},
    "spec": {"replicas": 1, "template": {"spec": POD}},
}


def entry(manager: str, fields: dict[str, Any], operation: str = "Update") -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "fieldsV1": fields}


def pod_fields(fields: dict[str, Any]) -> dict[str, Any]:
    return {"f:spec": {"f:template": {"f:spec": fields}}}


HELM = entry(
    "helm",
    pod_fields(
        {
            "f:containers": {
                CONTAINER: {
                    ".": {},
                    "f:image": {},
                    "f:name": {},
                    "f:env": {'k:{"name":"E"}': {".": {}, "f:name": {}, "f:value": {}}},
                }
            }
        }
    ),
    "Apply",
)
SET_ENV = entry(
    "kubectl-set",
    pod_fields(
        {
            "f:containers": {
                CONTAINER: {"f:env": {'k:{"name":"EXTRA"}': {".": {}, "f:name": {}, "f:value": {}}}}
            }
        }
    ),
)
PATCH = entry(
    "kubectl-patch",
    pod_fields(
        {"f:containers": {'k:{"name":"b"}': {".": {}, "f:image": {}, "f:imagePullPolicy": {}}}}
    ),
)


@pytest.fixture
def live() -> dict[str, Any]:
    made = copy.deepcopy(MANIFEST)
    made["metadata"]["managedFields"] = copy.deepcopy([HELM])
    return made


def edited(live: dict[str, Any]) -> dict[str, Any]:
    pod = live["spec"]["template"]["spec"]
    pod["containers"][0]["env"].append({"name": "EXTRA", "value": "1"})
    pod["containers"].insert(0, {"name": "b", "image": "y:1", "imagePullPolicy": "IfNotPresent"})
    live["metadata"]["managedFields"] += copy.deepcopy([SET_ENV, PATCH])
    return live


def told(live: dict[str, Any], **more: Any) -> list[str]:
    manifest = more.pop("manifest", MANIFEST)
    return [
        str(a.change) for a in additions(live, manifest, owner=more.pop("owner", "helm"), **more)
    ]


def test_what_helm_applied_is_no_addition(live: dict[str, Any]) -> None:
    assert told(live) == []


def test_a_variable_and_a_container_are_told_with_who_added_them(live: dict[str, Any]) -> None:
    variable, container = told(edited(live))
    assert variable == (
        'spec.template.spec.containers[a].env[EXTRA] {"name": "EXTRA", "value": "1"} → (absent) '
        "(added by kubectl-set)"
    )
    assert container.startswith('spec.template.spec.containers[b] {"name": "b"')


def test_additions_of_a_controller_that_the_site_names_are_its_own(live: dict[str, Any]) -> None:
    assert told(edited(live), ignored=("kubectl-set", "kubectl-patch")) == []


@pytest.mark.parametrize("manager", ["kube-controller-manager", "cloud-controller-manager"])
def test_additions_of_the_control_plane_are_its_own(live: dict[str, Any], manager: str) -> None:
    live["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "2"}
    fields: dict[str, Any] = {
        "f:metadata": {"f:annotations": {"f:deployment.kubernetes.io/revision": {}}}
    }
    live["metadata"]["managedFields"].append(entry(manager, fields))
    assert told(live) == []


def test_what_is_said_by_a_subresource_is_no_addition(live: dict[str, Any]) -> None:
    live["status"] = {"replicas": 1}
    status = entry("somebody", {"f:status": {"f:replicas": {}}}) | {"subresource": "status"}
    live["metadata"]["managedFields"].append(status)
    assert told(live) == []


def test_a_restart_is_no_configuration(live: dict[str, Any]) -> None:
    restarted = {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z", "note": "x"}
    live["spec"]["template"]["metadata"] = {"annotations": restarted}
    fields: dict[str, Any] = {".": {}, "f:kubectl.kubernetes.io/restartedAt": {}, "f:note": {}}
    template = {"f:spec": {"f:template": {"f:metadata": {"f:annotations": fields}}}}
    live["metadata"]["managedFields"].append(entry("kubectl-rollout", template))
    assert [line.split()[0] for line in told(live)] == ["spec.template.metadata.annotations.note"]


def test_annotations_without_a_value_in_the_rendering_are_not_helms_restart(
    live: dict[str, Any],
) -> None:
    """Helm owns the map that its rendering has as null; the keys have owners of their own."""
    restarted = {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}
    live["spec"]["template"]["metadata"] = {"annotations": restarted}
    template = live["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:template"]
    template["f:metadata"] = {"f:annotations": {}}
    assert told(live) == []


def test_a_node_port_that_the_server_chose_is_no_addition() -> None:
    ports = [{"name": "http", "port": 80}]
    manifest = {"metadata": {}, "spec": {"ports": ports}}
    fields: dict[str, Any] = {
        "f:spec": {"f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:nodePort": {}}}}
    }
    live = {
        "metadata": {"managedFields": [entry("helm", fields, "Apply")]},
        "spec": {"ports": [{**ports[0], "nodePort": 30080}]},
    }
    assert told(live, manifest=manifest) == []


def test_a_port_is_known_by_its_number_though_its_protocol_is_left_out() -> None:
    manifest = {"metadata": {}, "spec": {"ports": [{"name": "http", "port": 80}]}}
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "more", "port": 81}]
    keys = ('k:{"port":80,"protocol":"TCP"}', 'k:{"port":81,"protocol":"TCP"}')
    fields: dict[str, Any] = {"f:spec": {"f:ports": {key: {".": {}, "f:port": {}} for key in keys}}}
    live = {"metadata": {"managedFields": [entry("helm", fields)]}, "spec": {"ports": ports}}
    assert [line.split()[0] for line in told(live, manifest=manifest)] == ["spec.ports[more]"]


def test_what_our_own_file_no_longer_names_is_an_addition_too(live: dict[str, Any]) -> None:
    live["metadata"]["labels"] = {"old": "yes"}
    ours = entry("isa-cloud", {"f:metadata": {"f:labels": {"f:old": {}}}}, "Apply")
    live["metadata"]["managedFields"].append(ours)
    assert told(live, owner="isa-cloud") == [
        'metadata.labels.old "yes" → (absent) (added by isa-cloud)'
    ]
    assert told(live, owner="helm") == []


def test_a_label_without_a_value_which_the_server_makes_empty_is_no_addition(
    live: dict[str, Any],
) -> None:
    live["metadata"]["labels"] = {"x": ""}
    live["metadata"]["managedFields"][0]["fieldsV1"]["f:metadata"] = {"f:labels": {"f:x": {}}}
    assert told(live) == []


def test_added_fields_move_into_the_entry_of_the_owner(live: dict[str, Any]) -> None:
    edited(live)
    before = copy.deepcopy(live)
    (owned,) = taken_over(live, additions(live, MANIFEST, owner="helm"), "helm")

    containers = owned["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"]
    assert set(containers) == {CONTAINER, 'k:{"name":"b"}'}
    assert set(containers[CONTAINER]["f:env"]) == {'k:{"name":"E"}', 'k:{"name":"EXTRA"}'}
    assert live == before


def test_an_owner_that_never_applied_gets_an_entry(live: dict[str, Any]) -> None:
    live["metadata"]["managedFields"][0]["operation"] = "Update"  # Helm 3
    edited(live)
    entries = taken_over(live, additions(live, MANIFEST, owner="helm"), "helm")
    assert [(e["manager"], e["operation"]) for e in entries] == [
        ("helm", "Update"),
        ("helm", "Apply"),
    ]


def test_what_remains_of_another_managers_entry_stays_its_own(live: dict[str, Any]) -> None:
    edited(live)
    live["metadata"]["managedFields"][1]["fieldsV1"]["f:spec"]["f:replicas"] = {}
    entries = taken_over(live, additions(live, MANIFEST, owner="helm"), "helm")
    assert entries[1]["fieldsV1"] == {"f:spec": {"f:replicas": {}}}


def test_fields_are_taken_out_from_the_end_of_a_list(live: dict[str, Any]) -> None:
    live["metadata"]["labels"] = {"a/b~c": "x"}
    fields: dict[str, Any] = {"f:metadata": {"f:labels": {"f:a/b~c": {}}}}
    live["metadata"]["managedFields"].append(entry("kubectl-label", fields))
    edited(live)
    added = additions(live, MANIFEST, owner="helm")
    assert [operation["path"] for operation in removal(live, added)] == [
        "/spec/template/spec/containers/1/env/1",
        "/spec/template/spec/containers/0",
        "/metadata/labels/a~1b~0c",
    ]


def test_a_selector_that_was_extended_has_more_than_is_declared() -> None:
    manifest = {"metadata": {}, "spec": {"selector": {"app": "x"}}}
    managed = [entry("kubectl-edit", {"f:spec": {"f:selector": {}}})]
    live = {
        "metadata": {"managedFields": managed},
        "spec": {"selector": {"app": "x", "more": "y"}},
    }
    assert has_more(live, manifest)
    assert not has_more(live, live)
