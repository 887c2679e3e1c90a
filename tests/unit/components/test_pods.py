from __future__ import annotations

from typing import Any

import pytest

from cluster.kube import NotAllowed
from components.base import Check, Workload
from components.pods import check_workloads

QUOTA = (
    "create Pod redis-2 in StatefulSet redis failed error: pods \"redis-2\" is forbidden: exceeded "
    "quota: small, requested: count/pods=1, used: count/pods=2, limited: count/pods=2"
)  # fmt: skip


class Server:
    """A workload with two of three pods, and the events of its controller."""

    def __init__(self, events: list[dict[str, Any]] | Exception, kind: str = "StatefulSet") -> None:
        self.said = events
        self.kind = kind
        self.conditions: list[dict[str, str]] = []
        self.pods = 2
        self.asked: list[str] = []

    def get(self, api_version: str, kind: str, name: str, namespace: str) -> dict[str, Any]:
        status = {
            "readyReplicas": self.pods,
            "observedGeneration": 1,
            "conditions": self.conditions,
        }
        spec = {"replicas": 3, "selector": {"matchLabels": {"app": "redis"}}}
        metadata = {"name": name, "uid": "u1", "generation": 1}
        return {"metadata": metadata, "spec": spec, "status": status}

    def list(self, api_version: str, kind: str, namespace: str, selector: str = "") -> Any:
        assert kind == "Pod"
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        pod = {"spec": {"nodeName": "n"}, "status": ready}
        return [{**pod, "metadata": {"name": f"redis-{n}"}} for n in range(self.pods)]

    def events(self, namespace: str, about: dict[str, Any], reason: str) -> Any:
        self.asked.append(f"{about['kind']}/{about['metadata']['uid']} {reason}")
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


def ready(server: Server) -> Check:
    workload = Workload(server.kind, "redis", 3)
    kube: Any = server
    return check_workloads(kube, "isa", [workload])[0]


def test_a_pod_that_the_cluster_refuses_is_told_with_the_reason() -> None:
    server = Server(
        [
            {"message": QUOTA, "lastTimestamp": "2026-01-01T00:00:09Z"},
            {"message": "an older one", "lastTimestamp": "2026-01-01T00:00:01Z"},
        ]
    )
    check = ready(server)
    assert not check.ok
    assert check.hint == f"2 of 3 pods ready (the cluster rejected a pod: {QUOTA})"
    assert server.asked == ["StatefulSet/u1 FailedCreate"]


def test_a_deployment_says_it_in_its_own_condition() -> None:
    server = Server([], "Deployment")
    server.conditions = [
        {"type": "ReplicaFailure", "status": "True", "message": "denied by policy"}
    ]
    assert "denied by policy" in ready(server).hint


def test_without_a_refusal_the_pods_are_still_rolling_out() -> None:
    assert ready(Server([])).hint == "2 of 3 pods ready, still rolling out"


def test_while_all_pods_exist_no_events_are_read() -> None:
    server = Server([{"message": "an old refusal"}])
    server.pods = 3
    assert "refuse" not in ready(server).hint
    assert server.asked == []


@pytest.mark.parametrize("missing", [NotAllowed("HTTP 403")])
def test_events_that_may_not_be_read_are_told_as_that(missing: Exception) -> None:
    assert "events cannot be read" in ready(Server(missing)).hint
