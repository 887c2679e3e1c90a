"""`make soak`: what only real nodes can show: containers, probes, limits, policies between pods, and a clean end.

The result is kept in docs/results/soak-nodes.md. It needs root; without, it ends with what is missing.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from cluster.kube import Kube, Manifest
from config.loading import load
from errors import IsaError
from operations.environment.render import render_manifest
from sandbox.nodes.capsule import groups_left
from sandbox.nodes.cluster import Nodes
from sandbox.nodes.images import BUSYBOX
from sandbox.processes import running_below
from tests.soak.case_table import CaseTable, Missed

NAMESPACE = "isa-cloud-production"
NATS = {"app.kubernetes.io/name": "nats", "app.kubernetes.io/component": "nats"}
CLIENT = {"isa-cloud.io/client": "true"}
NODES = 3
SECONDS = 180.0
FACTS = {
    "ISA_STORAGE__OBJECT__ENDPOINT": "http://127.0.0.1:9000",
    "ISA_STORAGE__OBJECT__BUCKET": "isa-backups",
}


@dataclass
class Soak(CaseTable):
    """The cases.

    Attributes:
        nodes: the cluster.
    """

    nodes: Nodes = field(kw_only=True)

    @property
    def kube(self) -> Kube:
        return self.nodes.kube()

    # ------------------------------------------------------------------ the cases
    def pod_gets_ready_by_its_probe(self) -> None:
        probe = {"httpGet": {"path": "/", "port": 4222}, "periodSeconds": 1}
        self.kube.create(pod("nats-0", server(), labels=NATS, readinessProbe=probe))
        self.wait("nats-0", "get ready", is_ready)

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
        names = [f"apart-{number}" for number in range(NODES)]
        for name in names:
            made = pod(name, "sleep 1000", labels={"app": "apart"})
            made["spec"]["affinity"] = affinity
            self.kube.create(made)
        hosts = {self.wait(name, "run", is_ready)["spec"]["nodeName"] for name in names}
        expect(len(hosts) == NODES, f"they are on {hosts}")

    def policies_let_clients_through_and_nobody_else(self) -> None:
        """The project's own policies; a client on the server's node and one on another, by name and by address."""
        where = self.read("nats-0")["spec"]["nodeName"]
        address = self.read("nats-0")["status"]["podIP"]
        others = {node["metadata"]["name"] for node in self.kube.list("v1", "Node")} - {where}
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "nats", "namespace": NAMESPACE},
            "spec": {"selector": NATS, "ports": [{"port": 4222}]},
        }
        self.kube.create(service)
        for place, node in {"same": where, "other": min(others)}.items():
            for label, labels in {"client": CLIENT, "stranger": {}}.items():
                made = pod(f"{label}-{place}", "sleep 1000", labels=labels)
                made["spec"]["nodeName"] = node
                self.kube.create(made)
                self.wait(f"{label}-{place}", "run", is_ready)
        for place in ("same", "other"):
            for host in (address, "nats", f"nats.{NAMESPACE}.svc.cluster.local"):
                client, stranger = f"client-{place}", f"stranger-{place}"
                self.until(partial(self.reaches, client, host), f"{client} reaches {host}")
                expect(not self.reaches(stranger, host), f"{stranger} reaches {host}")

    def lost_node_is_noticed(self) -> None:
        lost = self.nodes.capsules()[-1]
        lost.down()

        def unknown() -> bool:
            node = self.kube.get("v1", "Node", lost.name) or {}
            conditions = node.get("status", {}).get("conditions", [])
            return any(one["type"] == "Ready" and one["status"] == "Unknown" for one in conditions)

        self.until(unknown, f"{lost.name} is Unknown")

    def nothing_is_left(self) -> None:
        directory = self.nodes.directory
        self.nodes.down()
        groups = groups_left(f"isa-{self.nodes.name}")
        mounts = [
            one
            for one in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
            if str(directory) in one
        ]
        expect(not groups, f"cgroups are left: {groups}")
        expect(not mounts, f"mounts are left: {mounts}")
        expect(not running_below(directory), f"processes are left: {running_below(directory)}")
        expect(not directory.exists(), f"{directory} is left")

    # ------------------------------------------------------------------ how they ask
    def read(self, name: str) -> Manifest:
        return self.kube.get("v1", "Pod", name, NAMESPACE) or {}

    def wait(self, name: str, words: str, condition: Callable[[Manifest], object]) -> Manifest:
        """Wait for a pod's state."""
        self.until(
            lambda: bool(condition(self.read(name))),
            f"{name} should {words}",
            lambda: self.read(name).get("status"),
        )
        return self.read(name)

    def until(
        self, condition: Callable[[], bool], words: str, state: Callable[[], Any] = str
    ) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            expect(time.monotonic() < deadline, f"{words}: not within {SECONDS:.0f} s: {state()}")
            time.sleep(0.2)

    def reaches(self, name: str, host: str) -> bool:
        """Whether a pod gets an answer from the server."""
        # Debian's static busybox crashes in its wget
        argv = ["sh", "-c", r'printf "GET / HTTP/1.0\r\n\r\n" | nc -w 3 "$0" 4222', host]
        kubectl = [
            str(self.nodes.program("kubectl")),
            f"--kubeconfig={self.nodes.kubeconfig}",
            "-n",
            NAMESPACE,
        ]
        done = subprocess.run(
            [*kubectl, "exec", name, "--", *argv], capture_output=True, text=True, check=False
        )
        return done.returncode == 0 and "hello" in done.stdout


def pod(
    name: str,
    script: str,
    labels: dict[str, str] | None = None,
    cpu: str = "50m",
    memory: str = "32Mi",
    **more: Any,
) -> Manifest:
    """A pod under the namespace's strictest rules, whose shell runs a script."""
    resources = {"cpu": cpu, "memory": memory}
    container = {
        "name": "shell",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", script],
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        **more,
    }
    security = {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels or {}},
        "spec": {
            "containers": [container],
            "securityContext": security,
            "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }


def server() -> str:
    return "mkdir /tmp/www && echo hello > /tmp/www/index.html && exec httpd -f -p 4222 -h /tmp/www"


def container_of(read: Manifest) -> dict[str, Any]:
    statuses = read.get("status", {}).get("containerStatuses") or [{}]
    return dict(statuses[0])


def is_ready(read: Manifest) -> bool:
    return bool(container_of(read).get("ready"))


def ended(read: Manifest) -> tuple[str, int]:
    """Why a container ended, now or before its restart."""
    status = container_of(read)
    states = [status.get(one, {}).get("terminated", {}) for one in ("state", "lastState")]
    return next(((one["reason"], one["exitCode"]) for one in states if one), ("", 0))


def waiting(read: Manifest) -> str:
    return str(container_of(read).get("state", {}).get("waiting", {}).get("reason", ""))


def expect(condition: bool, words: str) -> None:
    if not condition:
        raise Missed(words)


def policies() -> list[Manifest]:
    """The project's namespaces and network policies."""
    settings = load("sandbox", environ=FACTS)
    manifests = render_manifest(settings.platform.namespace_manifest, settings)
    return [one for one in manifests if one["kind"] in ("Namespace", "NetworkPolicy")]


def main() -> None:
    """Run all cases; exits with 1 if one failed."""
    nodes = Nodes("soak", NODES)
    soak = Soak(nodes=nodes)
    try:
        nodes.down()  # what an interrupted run left
        soak.case(f"{NODES} nodes get ready, and DNS on them", nodes.up)
        for manifest in policies():
            nodes.kube().apply(manifest)
        soak.case("a pod gets ready by its probe", soak.pod_gets_ready_by_its_probe)
        soak.case(
            "a failing liveness probe restarts a pod",
            soak.probe_that_fails_keeps_a_pod_unready_and_restarts_it,
        )
        soak.case("a memory limit kills", soak.memory_limit_kills)
        soak.case(
            "a pod runs that requests more than this machine has",
            soak.pod_runs_that_requests_more_than_this_machine_has,
        )
        soak.case("an image that runs as root is refused", soak.image_that_runs_as_root_is_refused)
        soak.case(
            "required anti-affinity gives each pod a node",
            soak.pods_with_required_anti_affinity_have_a_node_each,
        )
        soak.case(
            "network policies let clients through and nobody else",
            soak.policies_let_clients_through_and_nobody_else,
        )
        soak.case("a lost node is noticed", soak.lost_node_is_noticed)
    finally:
        soak.case("nothing is left behind", soak.nothing_is_left)
    soak.write(
        "docs/results/soak-nodes.md",
        "# Real nodes",
        "",
        f"`make soak`, {datetime.now(UTC):%Y-%m-%d}. {NODES} nodes with kubelet, containerd and runc, each in",
        "namespaces of its own.",
    )
    sys.exit(soak.failed)


if __name__ == "__main__":
    try:
        main()
    except IsaError as exc:
        sys.exit(str(exc))
