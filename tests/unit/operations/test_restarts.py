"""Pods read their settings at their start: where only those change, the pods restart, once, and the plan says so."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from operations.deploy.restarts import (
    DUE,
    RESTARTED,
    announce,
    restart,
    restarts_between,
    restarts_due,
    sources_of,
)

from ..sandbox_charts.rendering import production
from ..stored import NAMESPACE, Stored

Manifests = list[dict[str, Any]]


def config(name: str, kind: str = "ConfigMap", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "data": data}


def workload(kind: str = "StatefulSet", annotations: Any = None, **spec: Any) -> dict[str, Any]:
    template = {"metadata": {"annotations": annotations}, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "engine"},
        "spec": {"template": template},
    }


def container(name: str = "engine", **fields: Any) -> dict[str, Any]:
    return {"name": name, **fields}


READS: dict[str, dict[str, Any]] = {
    "envFrom": {"containers": [container(envFrom=[{"configMapRef": {"name": "settings"}}])]},
    "env": {
        "containers": [
            container(
                env=[
                    {"name": "A", "value": "b"},
                    {
                        "name": "B",
                        "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}},
                    },
                ]
            )
        ]
    },
    "an init container": {
        "initContainers": [container(envFrom=[{"configMapRef": {"name": "settings"}}])],
        "containers": [container()],
    },
    "a volume": {
        "containers": [container(volumeMounts=[{"name": "v", "mountPath": "/etc/engine"}])],
        "volumes": [{"name": "v", "configMap": {"name": "settings"}}],
    },
    "a projected volume": {
        "containers": [container(volumeMounts=[{"name": "v", "mountPath": "/etc/engine"}])],
        "volumes": [{"name": "v", "projected": {"sources": [{"configMap": {"name": "settings"}}]}}],
    },
}
OLD, NEW = config("settings", a="1"), config("settings", a="2")


def told(before: Manifests, after: Manifests) -> list[str]:
    return list(map(str, restarts_between(before, after)))


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment"])
@pytest.mark.parametrize("spec", READS.values(), ids=READS)
def test_pods_restart_to_read_what_changes(spec: dict[str, Any], kind: str) -> None:
    engine = workload(kind, **spec)
    assert told([engine, OLD], [engine, NEW]) == [
        f"{kind}/engine: its pods restart one after the other to read ConfigMap/settings"
    ]
    assert told([engine, OLD], [engine, OLD]) == []


@pytest.mark.parametrize("field", ["envFrom", "env", "volumeMounts"])
def test_a_key_without_a_value_is_an_absent_key(field: str) -> None:
    empty: dict[str, Any] = {field: None}
    engine = workload(containers=[container(**empty)], volumes=None, initContainers=None)
    assert told([engine, OLD], [engine, NEW]) == []


def test_a_secret_counts_as_a_config_map() -> None:
    engine = workload(
        containers=[container(volumeMounts=[{"name": "v", "mountPath": "/x"}])],
        volumes=[{"name": "v", "secret": {"secretName": "settings"}}],
    )
    old, new = (config("settings", "Secret", a=text) for text in "12")
    (one,) = told([engine, old], [engine, new])
    assert one.endswith("to read Secret/settings")


def test_a_changed_template_restarts_pods_by_itself() -> None:
    before, after = (
        workload(annotations={"checksum/config": text}, **READS["envFrom"]) for text in "12"
    )
    assert told([before, OLD], [after, NEW]) == []


def test_what_is_new_starts_with_its_settings() -> None:
    engine = workload(**READS["envFrom"])
    assert told([OLD], [engine, NEW]) == []
    assert len(told([engine], [engine, NEW])) == 1  # what was read before was not of this release


def test_labels_of_settings_are_not_read() -> None:
    engine = workload(**READS["envFrom"])
    labelled = {**OLD, "metadata": {"name": "settings", "labels": {"helm.sh/chart": "x-2"}}}
    assert told([engine, OLD], [engine, labelled]) == []


def test_a_server_that_is_told_to_read_again_restarts_only_where_it_refuses() -> None:
    mount = [{"name": "v", "mountPath": "/etc/engine"}]
    engine = workload(
        containers=[container(volumeMounts=mount), container("reloader", volumeMounts=mount)],
        volumes=[{"name": "v", "configMap": {"name": "settings"}}],
    )
    (one,) = restarts_between([engine, OLD], [engine, NEW])
    assert one.reloads
    assert str(one) == (
        "StatefulSet/engine: its servers reload ConfigMap/settings; if one refuses, "
        "its pods restart one after the other"
    )
    also = workload(**{**engine["spec"]["template"]["spec"], **READS["envFrom"]})
    (one,) = restarts_between([also, OLD], [also, NEW])
    assert not one.reloads


# Release, a ConfigMap of its chart, and what follows a change of it alone.
CHARTS = [
    ("emqx", "emqx-env", "restart"),
    ("postgresql-ha", "postgresql-ha-postgresql-extended-configuration", "restart"),
    (
        "postgresql-ha",
        "postgresql-ha-postgresql-initdb-scripts",
        "",
    ),  # read once in a volume's life
    ("nats", "nats-config", "reload"),
]


@pytest.mark.parametrize(("release", "name", "follows"), CHARTS)
def test_settings_of_the_production_charts(release: str, name: str, follows: str) -> None:
    before = copy.deepcopy(list(production(release)))
    after = copy.deepcopy(before)
    (changed,) = [m for m in after if (m["kind"], m["metadata"]["name"]) == ("ConfigMap", name)]
    changed["data"] = {**changed["data"], "added": "x"}
    found = ["reload" if one.reloads else "restart" for one in restarts_between(before, after)]
    assert found == ([follows] if follows else [])


# ---------------------------------------------------------------------- from the plan to the restart
ENGINE = workload(**READS["envFrom"])


@pytest.fixture
def kube() -> Stored:
    made = Stored()
    made.objects["StatefulSet", "engine"] = copy.deepcopy(ENGINE)
    return made


def live(kube: Stored) -> dict[str, Any]:
    return kube.objects["StatefulSet", "engine"]


def notes(kube: Stored) -> dict[str, Any]:
    return dict(live(kube)["metadata"].get("annotations", {}))


def restarted(kube: Stored) -> str:
    return str((live(kube)["spec"]["template"]["metadata"]["annotations"] or {}).get(RESTARTED, ""))


def test_a_restart_takes_its_note_away(kube: Stored) -> None:
    due = restarts_between([ENGINE, OLD], [ENGINE, NEW])
    announce(kube, due, [ENGINE, NEW], NAMESPACE)
    assert DUE in notes(kube)
    assert not restarted(kube)
    live(kube)["spec"]["template"]["metadata"]["annotations"] = {}
    restart(kube, due, NAMESPACE)
    assert DUE not in notes(kube)
    assert restarted(kube)
    assert restarts_due(kube, [ENGINE, NEW], NAMESPACE) == ()


def test_a_run_that_was_killed_behind_helm_leaves_a_restart_that_is_due(kube: Stored) -> None:
    planned = restarts_between([ENGINE, OLD], [ENGINE, NEW])
    announce(kube, planned, [ENGINE, NEW], NAMESPACE)
    assert restarts_due(kube, [ENGINE, NEW], NAMESPACE) == planned


def test_a_run_that_was_killed_before_helm_leaves_none(kube: Stored) -> None:
    planned = restarts_between([ENGINE, OLD], [ENGINE, NEW])
    announce(kube, planned, [ENGINE, NEW], NAMESPACE)
    assert restarts_due(kube, [ENGINE, OLD], NAMESPACE) == ()


@pytest.mark.parametrize("text", ["yes", "[]", '{"configuration": 5}', "null"])
def test_a_note_that_somebody_wrote_by_hand_restarts_nothing(text: str, kube: Stored) -> None:
    live(kube)["metadata"]["annotations"] = {DUE: text}
    assert restarts_due(kube, [ENGINE, NEW], NAMESPACE) == ()


def test_a_restart_that_is_due_comes_with_the_next_upgrade(kube: Stored) -> None:
    other, second = config("other", a="1"), config("other", a="2")
    engine = workload(
        containers=[
            container(envFrom=[{"configMapRef": {"name": name}} for name in ("settings", "other")])
        ]
    )
    planned = restarts_between([engine, OLD, other], [engine, NEW, other])
    announce(kube, planned, [engine, NEW, other], NAMESPACE)
    due = restarts_due(kube, [engine, NEW, other], NAMESPACE)
    (one,) = restarts_between([engine, NEW, other], [engine, NEW, second], sources_of(due))
    assert one.sources == ("ConfigMap/other", "ConfigMap/settings")


def test_a_note_goes_where_a_changed_template_restarts_the_pods_anyway(kube: Stored) -> None:
    announce(kube, restarts_between([ENGINE, OLD], [ENGINE, NEW]), [ENGINE, NEW], NAMESPACE)
    announce(kube, (), [ENGINE, NEW], NAMESPACE)
    assert DUE not in notes(kube)


def test_settings_that_somebody_edited_are_read_again_when_they_are_brought_back() -> None:
    (one,) = restarts_between([ENGINE, OLD], [ENGINE, OLD], [("ConfigMap", "settings")])
    assert one.sources == ("ConfigMap/settings",)
    assert restarts_between([ENGINE, OLD], [ENGINE, OLD], [("Service", "engine")]) == ()
