"""The installed engine: what the gate and the nodes say about it."""

from __future__ import annotations

import math
import os
import shlex
import subprocess
import time
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from cluster.credentials import ensure_secret
from cluster.kube import Kube, Manifest
from components import COMPONENTS
from components.base import Check
from config.loading import ROOT, load
from operations.environment.environment import Environment
from operations.environment.render import read_documents
from operations.health.gate import READY, Finding, check
from sandbox.nodes.cluster import Nodes
from sandbox.nodes.postgresql import image
from tests.soak.case_table import CaseTable, expect
from tests.soak.postgresql.writer import Writer, acknowledged

CRDS = ROOT / "sandbox/manifests/monitoring-crds.yaml"
COMPONENT = "postgresql"
SERVER = "postgresql"  # name of the container, and of the pods' component
FACTS = {
    "ISA_STORAGE__OBJECT__ENDPOINT": "http://127.0.0.1:9000",
    "ISA_STORAGE__OBJECT__BUCKET": "isa-backups",
    "ISA_KUBERNETES__ENGINE_ACCESS": "port-forward",
    "ISA_COMPONENTS__POSTGRESQL__PGPOOL": "true",
}
WITHOUT_EXPORTER: dict[str, Any] = {"metrics": {"enabled": False}}
PSQL = "psql -XtA -h 127.0.0.1 -U postgres"


@dataclass
class Installation(CaseTable):
    """Three nodes with the engine on them.

    Attributes:
        nodes: the cluster.
        figures: what was measured, in words.
        loads: of the machine, whenever something was measured.
    """

    wait_seconds = 300.0
    nodes: Nodes = field(kw_only=True)
    figures: list[str] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)

    def install(self) -> None:
        """Install production's release from images of our own."""
        self.nodes.load(image.archives())
        environment = self.environment
        for manifest in read_documents(CRDS):
            self.kube.apply(manifest)
        for manifests in environment.manifests.values():
            for manifest in manifests:
                self.kube.apply(manifest)
        for spec in COMPONENTS[COMPONENT].secrets:
            ensure_secret(self.kube, self.namespace, spec, COMPONENT)
        (release,) = environment.releases.of(COMPONENT)
        site = {**environment.site_of(release), **WITHOUT_EXPORTER}
        environment.helm.upgrade(release, site, rollback=False)

    def gate_is_green(self) -> None:
        """Wait until the gate passes."""
        self.until(lambda: self.gate().state == READY, "the gate is green", self.troubles)

    # ------------------------------------------------------------------ what the gate says
    @cached_property
    def environment(self) -> Environment:
        facts = {**FACTS, "ISA_KUBERNETES__KUBECONFIG": str(self.nodes.kubeconfig)}
        return Environment(load("sandbox", environ=facts))

    @property
    def kube(self) -> Kube:
        return self.environment.kube

    @property
    def namespace(self) -> str:
        return self.environment.settings.kubernetes.namespace

    def gate(self) -> Finding:
        return check(self.environment, COMPONENT)

    def troubles(self) -> str:
        return "; ".join(f"{one.name}: {one.hint}" for one in self.gate().checks if not one.ok)

    def check(self, name: str) -> Check:
        """One check of a round of the gate."""
        checks = {one.name: one for one in self.gate().checks}
        return checks.get(name, Check(name, False, f"not asked, only {', '.join(checks)}"))

    def primary(self) -> str:
        """The node that the gate takes for the only primary; "" if there is none."""
        names = [role.member for role in self.gate().roles if role.role == "primary"]
        return names[0] if len(names) == 1 else ""

    # ------------------------------------------------------------------ pods and where they run
    def pods(self, component: str) -> list[Manifest]:
        """Pods of a component of the chart, by name."""
        selector = f"app.kubernetes.io/component={component}"
        pods = self.kube.list("v1", "Pod", self.namespace, selector)
        return sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))

    def node_of(self, name: str) -> str:
        pod = self.kube.get("v1", "Pod", name, self.namespace) or {}
        return str(pod["spec"]["nodeName"])

    def pgpool_beside(self, node: str) -> str:
        """Address of a Pgpool on a node; one moves there if both are elsewhere."""
        if not self._pgpool_on(node):
            victim = self.pods("pgpool")[0]
            place = self.kube.get("v1", "Node", victim["spec"]["nodeName"]) or {}
            self.kube.patch(place, {"spec": {"unschedulable": True}})
            self.kube.delete("v1", "Pod", victim["metadata"]["name"], self.namespace)
            self.until(lambda: self._pgpool_on(node) != "", f"a Pgpool runs on {node}")
            self.kube.patch(place, {"spec": {"unschedulable": False}})
        return self._pgpool_on(node)

    def _pgpool_on(self, node: str) -> str:
        return next(
            (
                str(pod["status"]["podIP"])
                for pod in self.pods("pgpool")
                if pod["spec"].get("nodeName") == node and is_ready(pod)
            ),
            "",
        )

    def keep_dns_off(self, node: str) -> None:
        """Move the only pod of CoreDNS away from a node: a site has more than one."""
        others = [one for one in self.node_names() if one != node]
        deployment = self.kube.get("apps/v1", "Deployment", "coredns", "kube-system") or {}
        selector = {"nodeSelector": {"kubernetes.io/hostname": others[0]}}
        self.kube.patch(deployment, {"spec": {"template": {"spec": selector}}})

        def moved() -> bool:
            pods = self.kube.list("v1", "Pod", "kube-system", "k8s-app=kube-dns")
            return [pod["spec"].get("nodeName") for pod in pods if is_ready(pod)] == [others[0]]

        self.until(moved, f"CoreDNS runs on {others[0]}")

    def node_names(self) -> list[str]:
        return [str(one["metadata"]["name"]) for one in self.kube.list("v1", "Node")]

    # ------------------------------------------------------------------ clients
    def start(self, writer: Writer) -> None:
        """Start a client, and wait until it writes."""
        self.kube.create(writer.manifest(self.namespace))
        self.until(lambda: len(self.acknowledged(writer)) > 10, f"{writer.name} writes")

    def acknowledged(self, writer: Writer) -> dict[int, float]:
        pod = self.kube.get("v1", "Pod", writer.name, self.namespace) or {}
        if pod.get("status", {}).get("phase") != "Running":
            return {}
        return acknowledged(self.kubectl("logs", writer.name))

    def first_write_after(self, writer: Writer, moment: float) -> float:
        """When a client wrote again; it is waited for."""

        def again() -> float:
            done = self.acknowledged(writer).values()
            return min((when for when in done if when > moment), default=0.0)

        self.until(lambda: again() > 0, "a write through Pgpool succeeds again")
        return again()

    def count_lost(self, fault: str, *writers: Writer) -> int:
        """Number of acknowledged writes that the primary does not hold; ends the clients."""
        count = 0
        for writer in writers:
            done = self.acknowledged(writer)
            answer = self.query(f"SELECT number FROM {writer.table}")
            lost = sorted({*done} - {int(line) for line in answer.split()})
            words = f"{fault}: {len(lost)} of {len(done)} acknowledged writes of {writer.name} lost"
            if lost:
                span = max(done[one] for one in lost) - min(done[one] for one in lost)
                words += f", made within {span:.0f} s"
            self.note(words)
            count += len(lost)
            self.kube.delete("v1", "Pod", writer.name, self.namespace)
        return count

    # ------------------------------------------------------------------ how they ask
    def note(self, words: str) -> None:
        self.figures.append(words)
        self.loads.append(os.getloadavg()[0])
        print(f"  {time.strftime('%T')} {words}", flush=True)

    def query(self, sql: str) -> str:
        """Answer of the primary."""
        return self.in_pod(self.primary(), SERVER, f"{PSQL} -d isa -c {shlex.quote(sql)}")

    def logged(self, pod: str, container: str, words: str, since: float) -> float:
        """Seconds from a moment to the first line of a log with these words; nan if there is none."""
        for line in self.kubectl("logs", pod, "-c", container, "--timestamps").splitlines():
            moment = datetime.fromisoformat(line.partition(" ")[0]).timestamp()
            if moment > since and words in line:
                return moment - since
        return math.nan

    def in_pod(self, pod: str, container: str, script: str) -> str:
        return self.kubectl("exec", pod, "-c", container, "--", "bash", "-c", script)

    def kubectl(self, *words: str) -> str:
        program = [str(self.nodes.program("kubectl")), f"--kubeconfig={self.nodes.kubeconfig}"]
        argv = [*program, "-n", self.namespace, *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        expect(done.returncode == 0, f"kubectl {' '.join(words[:3])}: {done.stderr.strip()[-500:]}")
        return done.stdout


def is_ready(pod: Manifest) -> bool:
    """Whether a pod is ready."""
    conditions = pod.get("status", {}).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
