from __future__ import annotations

import json
from typing import Any

import pytest

from cluster.kube import decode
from cluster.manifests import faults_of, parse_manifests, without_nulls

CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}


def stateful_set(**pod: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "qdrant"},
        "spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "qdrant"}], **pod}}},
    }


CLAIM: dict[str, Any] = {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {}}}}
CLAIMING = stateful_set()
CLAIMING["spec"]["volumeClaimTemplates"] = [CLAIM]


def test_a_key_without_a_value_is_an_absent_key_at_every_depth() -> None:
    text = "kind: X\nspec:\n  initContainers:\n  containers:\n  - {name: a, envFrom: null}\n"
    assert parse_manifests(text) == [{"kind": "X", "spec": {"containers": [{"name": "a"}]}}]


@pytest.mark.parametrize("value", [False, 0, "", {}, []])
def test_an_empty_value_is_a_value(value: Any) -> None:
    assert without_nulls({"key": value}) == {"key": value}


def test_lists_are_taken_apart() -> None:
    text = json.dumps({"kind": "ConfigMapList", "items": [CONFIG_MAP]})
    assert parse_manifests(f"{text}\n---\n\n---\n{json.dumps(CONFIG_MAP)}") == [CONFIG_MAP] * 2
    assert parse_manifests("kind: ConfigMapList\nitems:\n") == []


def test_a_sound_object_has_no_faults() -> None:
    assert faults_of(stateful_set(initContainers=[], volumes=[{"name": "a", "emptyDir": {}}])) == []


@pytest.mark.parametrize(
    ("manifest", "fault"),
    [
        ("text", "a document is text, not an object"),
        ({**CONFIG_MAP, "metadata": {}}, "metadata.name is missing"),
        ({**CONFIG_MAP, "metadata": {"name": 7}}, "metadata.name is a number, must be text"),
        ({**CONFIG_MAP, "data": ["a"]}, "data is a list, must be a map"),
        ({"kind": "X", "metadata": {"name": "a"}}, "apiVersion is missing"),
        ({**CONFIG_MAP, "data": {"port": 4222}}, "data.port is a number, must be text"),
        (
            stateful_set(containers=[{"resources": {"requests": {"cpu": "2x"}}}]),
            "spec.template.spec.containers[0].resources.requests.cpu is '2x', which is not a quantity",
        ),
        (stateful_set(containers=None), "spec.template.spec.containers is missing"),
        (
            CLAIMING,
            "spec.volumeClaimTemplates[0].spec.resources.requests.storage is missing",
        ),
        (
            stateful_set(initContainers={}),
            "spec.template.spec.initContainers is a map, must be a list",
        ),
        (stateful_set(volumes=[None]), "spec.template.spec.volumes[0] is null, must be a map"),
        (
            stateful_set(containers=[{"name": "a", "env": [True]}]),
            "spec.template.spec.containers[0].env[0] is true or false, must be a map",
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_named_by_its_path(manifest: Any, fault: str) -> None:
    (said,) = faults_of(without_nulls(manifest))
    assert said.endswith(fault)


def test_answers_of_the_server_have_no_nulls_either() -> None:
    assert decode(b'{"items": null, "metadata": {"continue": null}}') == {"metadata": {}}
