"""The status of all components: each is asked, whatever the others answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.kube import Kube, Manifest
from components import COMPONENTS
from components.base import Check, Role, Workload
from components.pods import Member
from errors import TemporaryError
from operations.environment.environment import Environment
from operations.health.gate import Finding
from operations.health.status import ComponentStatus, document, read_status
from tests.environments import environment_with

from ..stored import NAMESPACE, settings_of


class Cluster(Kube):
    """A StatefulSet of one pod per component.

    Attributes:
        lost: name of a workload that cannot be read.
        unready: name of a workload whose pod is not ready.
    """

    def __init__(self) -> None:
        self.lost = self.unready = ""

    def get(self, _: str, kind: str, name: str, namespace: str | None = None) -> Manifest:
        assert namespace == NAMESPACE
        if name == self.lost:
            raise TemporaryError("the API server is away")
        ready = int(name != self.unready)
        return {
            "metadata": {"name": name, "uid": "u", "generation": 1},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}},
            "status": {"readyReplicas": ready, "observedGeneration": 1},
        }

    def list(
        self, _: str, kind: str, namespace: str | None = None, selector: str | None = None
    ) -> list[Manifest]:
        assert namespace == NAMESPACE
        name = (selector or "").removeprefix("app=")
        state = {"type": "Ready", "status": str(name != self.unready)}
        return [
            {
                "metadata": {"name": f"{name}-0"},
                "spec": {"nodeName": "a"},
                "status": {"conditions": [state]},
            }
        ]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    for name in ("redis", "nats", "qdrant"):
        engine = SimpleNamespace(
            workloads=lambda settings, name=name: (
                Workload("StatefulSet", name, settings.components.members),
            )
        )
        monkeypatch.setitem(COMPONENTS, name, cast(Any, engine))
    return Cluster()


def environment(cluster: Cluster) -> Environment:
    settings = settings_of(components=SimpleNamespace(members=1))
    settings.deploy.gate = "kubernetes"
    releases = SimpleNamespace(components=lambda: ["nats", "redis"])
    return environment_with(settings, kube=cluster, releases=releases)


def test_the_declared_components_are_asked(cluster: Cluster) -> None:
    found = read_status(environment(cluster))
    assert {one.name: one.finding.state for one in found} == {"nats": "ready", "redis": "ready"}
    assert found[0].members == (Member(f"{found[0].name}-0", found[0].name, "a", True, 0, ""),)
    assert document(found).ready


def test_only_the_chosen_components_are_asked(cluster: Cluster) -> None:
    assert [one.name for one in read_status(environment(cluster), ["qdrant"])] == ["qdrant"]


def test_a_component_that_cannot_be_read_is_down_and_stops_no_other(cluster: Cluster) -> None:
    cluster.lost = "redis"
    found = {one.name: one for one in read_status(environment(cluster))}
    assert found["nats"].ready
    lost = found["redis"]
    assert (lost.ready, lost.finding.state, lost.members) == (False, "down", ())
    (check,) = lost.finding.checks
    assert (check.name, check.ok, check.hint) == ("reachable", False, "the API server is away")
    assert not document(found.values()).ready


def test_one_component_that_is_not_ready_is_enough(cluster: Cluster) -> None:
    cluster.unready = "nats"
    found = read_status(environment(cluster))
    said = document(found)
    assert not said.ready
    assert {one.name: (one.ready, one.state) for one in said.components} == {
        "nats": (False, "down"),
        "redis": (True, "ready"),
    }


def test_a_member_is_shown_with_its_role_in_the_engine() -> None:
    pods = tuple(Member(f"redis-{n}", "redis", "a", True, 0, "") for n in range(2))
    checks = (Check("slow", False, "a second", critical=False),)
    status = ComponentStatus("redis", Finding(checks, (Role("redis-0", "primary", "3 s"),)), pods)
    said = status.document()
    assert (said.ready, said.state) == (False, "degraded")
    assert [(one.name, one.role, one.lag) for one in said.members] == [
        ("redis-0", "primary", "3 s"),
        ("redis-1", "", ""),
    ]
    assert [one.name for one in said.checks] == ["slow"]
