"""When a component counts as rolled out in Kubernetes, and why a pod of it is not ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from cluster.kube import Kube, Manifest, NotAllowed
from components.base import Check, Workload
from components.pods import Member, check_workloads, members

READY = [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}]
CLAIM: Manifest = {"metadata": {"name": "data"}}


def pod(name: str, node: str = "", **status: Any) -> Manifest:
    return {
        "metadata": {"name": name, "labels": {"app": "nats"}},
        "spec": {"nodeName": node} if node else {},
        "status": {"conditions": READY, **status},
    }


class Cluster(Kube):
    """One workload with its pods and claims.

    Attributes:
        live: the workload; None if it does not exist.
        pods: its pods.
        claims: name of each claim → its phase.
        said: events of its controller.
    """

    def __init__(self, kind: str = "StatefulSet", replicas: int = 3) -> None:
        self.live: Manifest | None = {
            "kind": kind,
            "metadata": {"name": "nats", "uid": "u", "generation": 4},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "nats", "part": "server"}}},
            "status": {
                "readyReplicas": replicas, "updatedReplicas": replicas, "observedGeneration": 4,
                "currentRevision": "nats-1", "updateRevision": "nats-1",
            },
        }  # fmt: skip
        self.pods = [pod(f"nats-{n}", f"node-{n}") for n in range(replicas)]
        self.claims: dict[str, str] = {}
        self.said: Sequence[Manifest] | Exception = []
        self.selectors: list[str | None] = []

    @property
    def status(self) -> dict[str, Any]:
        assert self.live
        found: dict[str, Any] = self.live["status"]
        return found

    def get(self, _: str, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        return self.live

    def list(
        self, _: str, kind: str, namespace: str | None = None, selector: str | None = None
    ) -> list[Manifest]:
        if kind == "Pod":
            self.selectors.append(selector)
            return self.pods
        return [
            {"metadata": {"name": name}, "status": {"phase": phase}}
            for name, phase in self.claims.items()
        ]

    def events(self, namespace: str, about: Manifest, reason: str) -> Sequence[Manifest]:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said

    def checks(self, *workloads: Workload) -> dict[str, Check]:
        declared = workloads or (
            Workload(self.live["kind"] if self.live else "StatefulSet", "nats", 3),
        )
        return {one.name: one for one in check_workloads(self, "isa", declared)}

    @property
    def ready(self) -> Check:
        return self.checks()["nats ready"]


def test_a_workload_with_all_pods_ready_is_rolled_out() -> None:
    cluster = Cluster()
    assert {name: (one.ok, one.hint) for name, one in cluster.checks().items()} == {
        "nats ready": (True, "3 of 3"),
        "nats on nodes of their own": (True, "3 nodes"),
    }
    assert set(cluster.selectors) == {"app=nats,part=server"}


def test_a_workload_that_does_not_exist_is_down() -> None:
    cluster = Cluster()
    cluster.live = None
    (check,) = cluster.checks().values()
    assert (check.ok, check.critical) == (False, True)
    assert check.hint == "StatefulSet nats does not exist: deploy it"


def test_a_workload_that_no_controller_has_seen_yet_is_not_rolled_out() -> None:
    cluster = Cluster()
    assert cluster.live
    del cluster.live["status"]
    cluster.pods = []
    assert cluster.ready.hint == "0 of 3 pods ready, still rolling out"


def test_another_number_of_replicas_than_the_settings_expect_is_told() -> None:
    cluster = Cluster(replicas=2)
    assert cluster.ready.hint == "declared with 2 replicas, but the settings expect 3 members"
    assert not cluster.ready.ok


@pytest.mark.parametrize(("ready", "critical"), [(2, False), (0, True)])
def test_a_component_is_down_when_no_pod_is_ready_and_degraded_before(
    ready: int, critical: bool
) -> None:
    cluster = Cluster()
    cluster.status["readyReplicas"] = ready
    assert (cluster.ready.ok, cluster.ready.critical) == (False, critical)
    assert cluster.ready.hint == f"{ready} of 3 pods ready, still rolling out"


@pytest.mark.parametrize(
    "status", [{"observedGeneration": 3}, {"updateRevision": "nats-2"}], ids=["seen", "restarted"]
)
def test_a_change_that_has_not_reached_every_pod_is_not_rolled_out(status: dict[str, Any]) -> None:
    cluster = Cluster()
    cluster.status.update(status)
    assert not cluster.ready.ok
    assert cluster.ready.hint.endswith("still rolling out")


@pytest.mark.parametrize(("updated", "ok"), [(2, False), (3, True), (4, True)])
def test_a_deployment_is_rolled_out_when_its_pods_are_updated(updated: int, ok: bool) -> None:
    cluster = Cluster("Deployment")
    cluster.status.update(updatedReplicas=updated, updateRevision="unknown to Deployments")
    assert cluster.ready.ok is ok


def test_more_pods_than_declared_are_enough() -> None:
    cluster = Cluster()
    cluster.status["readyReplicas"] = 4
    assert cluster.ready.ok


# ---------------------------------------------------------------------- pods in trouble
def test_each_pod_in_trouble_is_named_with_its_cause() -> None:
    cluster = Cluster()
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    unscheduled = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    cluster.pods = [
        pod("nats-0", "a", conditions=[], containerStatuses=[{"name": "nats", "state": waiting}]),
        pod("nats-1", conditions=[{"type": "Ready", "status": "False"}, unscheduled]),
        pod("nats-2", "c"),
    ]
    cluster.status["readyReplicas"] = 1
    assert cluster.ready.hint == (
        "1 of 3 pods ready (nats-0: container nats: ImagePullBackOff no such image; nats-1: 0/3 nodes are available)"
    )


def test_a_pod_without_a_message_is_named_with_its_phase() -> None:
    cluster = Cluster(replicas=1)
    running: Manifest = {"running": {}}
    cluster.pods = [
        pod("nats-0", conditions=[], phase="Running", containerStatuses=[{"name": "n", "state": running}]),
    ]  # fmt: skip
    (found,) = members(cluster, "isa", Workload("StatefulSet", "nats", 1))
    assert found == Member("nats-0", "nats", "", False, 0, "Running, not ready")
    cluster.pods = [pod("nats-0", conditions=[])]
    (found,) = members(cluster, "isa", Workload("StatefulSet", "nats", 1))
    assert found.trouble == "Pending, not ready"


def test_members_are_listed_by_name_with_the_restarts_of_all_their_containers() -> None:
    cluster = Cluster(replicas=2)
    restarted = [{"name": "nats", "restartCount": 2}, {"name": "reloader", "restartCount": 1}]
    cluster.pods = [pod("nats-1", "b", containerStatuses=restarted), pod("nats-0", "a")]
    found = members(cluster, "isa", Workload("StatefulSet", "nats", 2))
    assert found == [
        Member("nats-0", "nats", "a", True, 0, ""),
        Member("nats-1", "nats", "b", True, 3, ""),
    ]
    cluster.live = None
    assert members(cluster, "isa", Workload("StatefulSet", "nats", 2)) == []


def test_events_that_may_not_be_read_are_told_beside_the_missing_pod() -> None:
    cluster = Cluster()
    cluster.pods.pop()
    cluster.status["readyReplicas"] = 2
    cluster.said = NotAllowed("HTTP 403")
    assert "events cannot be read: this identity lacks the permission" in cluster.ready.hint


def test_events_are_not_asked_for_when_no_pod_is_missing() -> None:
    cluster = Cluster()
    cluster.status["readyReplicas"] = 2
    cluster.said = [{"message": "of another week", "lastTimestamp": "2026-01-01T00:00:00Z"}]
    assert cluster.ready.hint == "2 of 3 pods ready, still rolling out"


@pytest.mark.parametrize(
    "newer",
    [
        {"series": {"lastObservedTime": "2026-01-02"}, "eventTime": "2025-01-01"},
        {"lastTimestamp": "2026-01-02"},
        {"eventTime": "2026-01-02"},
    ],
    ids=["a series", "an old form", "a new form"],
)
def test_the_newest_event_is_told(newer: Manifest) -> None:
    cluster = Cluster()
    cluster.pods.pop()
    cluster.status["readyReplicas"] = 2
    older = {"message": "older", "lastTimestamp": "2026-01-01"}
    cluster.said = [{"message": "newer", **newer}, older, {"message": "undated"}]
    assert "rejected a pod: newer" in cluster.ready.hint


# ---------------------------------------------------------------------- nodes and volumes
def test_pods_that_share_a_node_are_a_warning() -> None:
    cluster = Cluster()
    cluster.pods = [pod("nats-0", "a"), pod("nats-1", "b"), pod("nats-2", "a")]
    check = cluster.checks()["nats on nodes of their own"]
    assert (check.ok, check.critical) == (False, False)
    assert check.hint == "several pods on a: losing one node loses them all"


def test_pods_that_are_not_scheduled_share_no_node() -> None:
    cluster = Cluster()
    cluster.pods = [pod("nats-0", "a"), pod("nats-1"), pod("nats-2")]
    assert cluster.checks()["nats on nodes of their own"].hint == "1 nodes"


def test_workloads_of_one_group_must_not_share_a_node() -> None:
    cluster = Cluster(replicas=1)
    group = [Workload("StatefulSet", name, 1, group="all") for name in ("neo4j-1", "neo4j-2")]
    found = cluster.checks(*group)  # both have the one pod
    assert "all on nodes of their own" in found
    assert not found["all on nodes of their own"].ok


def test_the_only_pod_of_a_workload_shares_its_node_with_none() -> None:
    cluster = Cluster(replicas=1)
    assert [*cluster.checks(Workload("StatefulSet", "nats", 1))] == ["nats ready"]


def test_every_claim_of_every_pod_must_be_bound() -> None:
    cluster = Cluster()
    assert cluster.live
    cluster.live["spec"]["volumeClaimTemplates"] = [CLAIM]
    cluster.claims = {"data-nats-0": "Bound", "data-nats-1": "Pending", "data-redis-0": "Lost"}
    check = cluster.checks()["volumes bound"]
    assert (check.ok, check.critical) == (False, True)
    assert check.hint == "not bound: data-nats-1, data-nats-2 (see kubectl describe pvc)"
    cluster.claims |= {"data-nats-1": "Bound", "data-nats-2": "Bound"}
    assert cluster.checks()["volumes bound"].hint == "3 claims"
