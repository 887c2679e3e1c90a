"""What kubelet and containerd do: probes, limits, security contexts, places, a lost node, a clean end."""

from __future__ import annotations

from dataclasses import dataclass

from tests.soak.case_table import expect
from tests.soak.nodes.cases import (
    NAMESPACE,
    NodeCases,
    container_of,
    ended,
    is_ready,
    pod,
    waiting,
)
from tests.soak.nodes.policies import policies


@dataclass
class KubeletCases(NodeCases):
    """Cases without any engine."""

    def run(self) -> None:
        """Try all; the lost node is the last, since it does not come back."""
        for manifest in policies():
            self.kube.apply(manifest)
        self.case("a pod gets ready by its probe", self.pod_gets_ready_by_its_probe)
        self.case(
            "a failing liveness probe restarts a pod",
            self.probe_that_fails_keeps_a_pod_unready_and_restarts_it,
        )
        self.case("a memory limit kills", self.memory_limit_kills)
        self.case(
            "a pod runs that requests more than this machine has",
            self.pod_runs_that_requests_more_than_this_machine_has,
        )
        self.case("an image that runs as root is refused", self.image_that_runs_as_root_is_refused)
        self.case(
            "required anti-affinity gives each pod a node",
            self.pods_with_required_anti_affinity_have_a_node_each,
        )
        self.case("a lost node is noticed", self.lost_node_is_noticed)

    def pod_gets_ready_by_its_probe(self) -> None:
        probe = {"httpGet": {"path": "/", "port": 4222}, "periodSeconds": 1}
        self.kube.create(pod("serving", server(), readinessProbe=probe))
        self.wait("serving", "get ready", is_ready)

    def probe_that_fails_keeps_a_pod_unready_and_restarts_it(self) -> None:
        probe = {"exec": {"command": ["/bin/false"]}, "periodSeconds": 1, "failureThreshold": 1}
        self.kube.create(
            pod("failing", "trap 'exit 0' TERM; sleep 1000 & wait", livenessProbe=probe)
        )
        self.wait("failing", "be restarted", lambda one: container_of(one).get("restartCount", 0))

    def memory_limit_kills(self) -> None:
        self.kube.create(pod("hungry", "tail /dev/zero", memory="64Mi"))
        self.wait("hungry", "be killed", lambda one: ended(one) == ("OOMKilled", 137))

    def pod_runs_that_requests_more_than_this_machine_has(self) -> None:
        self.kube.create(pod("large", "sleep 1000", cpu="12", memory="48Gi"))
        self.wait("large", "run", is_ready)
        self.kube.delete("v1", "Pod", "large", NAMESPACE)

    def image_that_runs_as_root_is_refused(self) -> None:
        made = pod("root", "sleep 1000")
        del made["spec"]["securityContext"]["runAsUser"]
        self.kube.create(made)
        refused = "CreateContainerConfigError"
        self.wait("root", "be refused", lambda one: waiting(one) == refused)

    def pods_with_required_anti_affinity_have_a_node_each(self) -> None:
        rule = {
            "labelSelector": {"matchLabels": {"app": "apart"}},
            "topologyKey": "kubernetes.io/hostname",
        }
        affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [rule]}}
        names = [f"apart-{number}" for number in range(self.nodes.count)]
        for name in names:
            made = pod(name, "sleep 1000", labels={"app": "apart"})
            made["spec"]["affinity"] = affinity
            self.kube.create(made)
        hosts = {self.wait(name, "run", is_ready)["spec"]["nodeName"] for name in names}
        expect(len(hosts) == len(names), f"they are on {hosts}")

    def lost_node_is_noticed(self) -> None:
        lost = self.nodes.capsules()[-1]
        lost.down()

        def unknown() -> bool:
            node = self.kube.get("v1", "Node", lost.name) or {}
            conditions = node.get("status", {}).get("conditions", [])
            return any(one["type"] == "Ready" and one["status"] == "Unknown" for one in conditions)

        self.until(unknown, f"{lost.name} is Unknown")


def server() -> str:
    return "mkdir /tmp/www && echo hello > /tmp/www/index.html && exec httpd -f -p 4222 -h /tmp/www"
