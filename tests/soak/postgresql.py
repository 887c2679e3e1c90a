"""`make soak`: PostgreSQL under repmgr behind Pgpool on real nodes, with production's values: failover, split, rejoin.

A client writes through Pgpool all the time. After each fault: how long it could not write, and which of the writes that
it got acknowledged are lost. The result is kept in docs/results/soak-postgresql.md. It needs root.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from cluster.credentials import ensure_secret
from cluster.kube import Kube, Manifest
from components import COMPONENTS
from components.base import Check
from config.loading import ROOT, load
from errors import IsaError
from operations.environment.environment import Environment
from operations.environment.render import read_documents
from operations.health.gate import READY, Finding, check
from sandbox.machine import binaries
from sandbox.nodes.cluster import Nodes
from sandbox.nodes.postgresql import image
from tests.soak.case_table import CaseTable, expect

CRDS = ROOT / "sandbox/manifests/monitoring-crds.yaml"
NODES = 3
COMPONENT = "postgresql"
CLIENT = "writer"
PRIMARY_CONTAINER = "postgresql"
FACTS = {
    "ISA_STORAGE__OBJECT__ENDPOINT": "http://127.0.0.1:9000",
    "ISA_STORAGE__OBJECT__BUCKET": "isa-backups",
    "ISA_KUBERNETES__ENGINE_ACCESS": "port-forward",
    "ISA_COMPONENTS__POSTGRESQL__PGPOOL": "true",
}
WITHOUT_EXPORTER: dict[str, Any] = {"metrics": {"enabled": False}}
FIRST_WRITE_SECONDS = 15.0
# Each write is a connection of its own, as after a failover; what it prints is acknowledged.
WRITES = """
n=0
until psql "$to" -qc 'CREATE TABLE IF NOT EXISTS written (number int PRIMARY KEY)'; do sleep 1; done
while :; do
    n=$((n + 1))
    if timeout 4 psql "$to" -qc "INSERT INTO written VALUES ($n)"; then echo "$n $(date +%s.%3N)"; fi 2> /dev/null
    sleep 0.1
done
"""


@dataclass
class Soak(CaseTable):
    """The cases.

    Attributes:
        nodes: the cluster.
        figures: what was measured, in words.
    """

    wait_seconds = 300.0
    nodes: Nodes = field(kw_only=True)
    figures: list[str] = field(default_factory=list)

    # ------------------------------------------------------------------ the cases
    def installs_with_productions_values(self) -> None:
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
        self.until(lambda: self.gate().state == READY, "the gate is green", self.troubles)

    def client_writes(self) -> None:
        self.kube.create(client(self.namespace))
        running = lambda: self.pod(CLIENT).get("status", {}).get("phase") == "Running"  # noqa: E731
        self.until(running, "the client runs")
        self.until(lambda: len(self.acknowledged()) > 10, "a client writes through Pgpool")

    def killed_primary_is_replaced(self) -> None:
        old = self.primary()
        began = time.time()
        self.in_pod(old, PRIMARY_CONTAINER, 'kill -9 "$(head -n 1 "$PGDATA/postmaster.pid")"')
        seconds = self.first_write_after(began + 1) - began
        self.note(f"primary's server killed: first write through Pgpool after {seconds:.1f} s")
        self.until(lambda: self.primary() not in ("", old), "another node is primary")
        found = self.check("Pgpool knows the nodes")
        expect(not found.ok and "pcp_attach_node -n" in found.hint, f"Pgpool's view: {found.hint}")
        expect(seconds <= FIRST_WRITE_SECONDS, f"the first write took {seconds:.1f} s")

    def killed_primary_comes_back_as_a_standby(self) -> None:
        began = time.time()
        self.gate_is_green()
        self.note(
            f"the old primary is back and the gate green after {time.time() - began:.0f} s more"
        )
        self.count_lost("primary's server killed")

    def detached_node_is_named_with_its_cure(self) -> None:
        (pool, *_) = self.pods("pgpool")
        standby = next(one for one in self.gate().roles if one.role == "standby").member[-1]
        pcp = (
            "export PCPPASSFILE=/tmp/pass; umask 077; "
            'echo "localhost:9898:$PGPOOL_ADMIN_USERNAME:$(cat "$PGPOOL_ADMIN_PASSWORD_FILE")" > $PCPPASSFILE; '
            'pcp_{}_node -h localhost -p 9898 -U "$PGPOOL_ADMIN_USERNAME" -w -n {}'
        )
        self.in_pod(pool, "pgpool", pcp.format("detach", standby))
        found = self.check("Pgpool knows the nodes")
        cure = f"pcp_attach_node -n {standby}"
        expect(cure in found.hint, f"the gate says {found.hint or 'nothing'}")
        self.in_pod(pool, "pgpool", pcp.format("attach", standby))
        self.gate_is_green()

    def cut_off_primary_is_told_as_a_split_brain(self) -> None:
        old = self.primary()
        node = str(self.pod(old)["spec"]["nodeName"])
        began = time.time()
        self.nodes.cut(node)
        try:
            seconds = self.first_write_after(began + 1) - began
            self.until(lambda: self.primary() not in ("", old), "another node is primary")
        finally:
            self.nodes.reconnect(node)
        self.note(f"primary's node cut off: first write through Pgpool after {seconds:.1f} s")
        self.until(lambda: "split brain" in self.check("one primary").hint, "a split brain is told")
        found = self.check("Pgpool writes to")
        self.note(f"two primaries: Pgpool writes to {found.hint}")

    def cut_off_primary_fences_itself_and_comes_back(self) -> None:
        began = time.time()
        self.gate_is_green()
        self.note(
            f"the cut-off primary has fenced itself, the gate is green after {time.time() - began:.0f} s"
        )
        self.count_lost("primary's node cut off")

    # ------------------------------------------------------------------ how they ask
    @property
    def kube(self) -> Kube:
        return self.environment.kube

    @cached_property
    def environment(self) -> Environment:
        facts = {**FACTS, "ISA_KUBERNETES__KUBECONFIG": str(self.nodes.kubeconfig)}
        return Environment(load("sandbox", environ=facts))

    @property
    def namespace(self) -> str:
        return self.environment.settings.kubernetes.namespace

    def note(self, words: str) -> None:
        self.figures.append(words)
        print(f"  {words}", flush=True)

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

    def pods(self, component: str) -> list[str]:
        selector = f"app.kubernetes.io/component={component}"
        found = self.kube.list("v1", "Pod", self.namespace, selector)
        return sorted(str(one["metadata"]["name"]) for one in found)

    def pod(self, name: str) -> Manifest:
        return self.kube.get("v1", "Pod", name, self.namespace) or {}

    def in_pod(self, pod: str, container: str, script: str) -> str:
        return self.kubectl("exec", pod, "-c", container, "--", "bash", "-c", script)

    def acknowledged(self) -> dict[int, float]:
        """Number of each write that the client knows as done → when it knew."""
        lines = (line.split() for line in self.kubectl("logs", CLIENT).splitlines())
        return {int(line[0]): float(line[1]) for line in lines if len(line) == 2}

    def first_write_after(self, moment: float) -> float:
        self.until(lambda: self.after(moment) > 0, "a write through Pgpool succeeds again")
        return self.after(moment)

    def after(self, moment: float) -> float:
        return min((when for when in self.acknowledged().values() if when > moment), default=0.0)

    def count_lost(self, fault: str) -> None:
        """Compare what was acknowledged with what the primary holds."""
        acknowledged = set(self.acknowledged())
        answer = self.in_pod(
            self.primary(),
            PRIMARY_CONTAINER,
            "psql -XtA -h 127.0.0.1 -U postgres -d isa -c 'SELECT number FROM written'",
        )
        lost = acknowledged - {int(line) for line in answer.split()}
        self.note(f"{fault}: {len(lost)} of {len(acknowledged)} acknowledged writes lost")

    def kubectl(self, *words: str) -> str:
        program = [str(self.nodes.program("kubectl")), f"--kubeconfig={self.nodes.kubeconfig}"]
        argv = [*program, "-n", self.namespace, *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        expect(done.returncode == 0, f"kubectl {' '.join(words[:3])}: {done.stderr.strip()[-500:]}")
        return done.stdout


def client(namespace: str) -> Manifest:
    """A client as the policies let through, with a connection for each write."""
    to = "host=postgresql-ha-pgpool user=isa dbname=isa connect_timeout=2"
    password = {"secretKeyRef": {"name": "postgresql-ha-auth", "key": "password"}}
    resources = {"cpu": "100m", "memory": "64Mi"}
    container = {
        "name": "shell",
        "image": image.POSTGRESQL,
        "command": ["bash", "-c", WRITES],
        "env": [
            {"name": "to", "value": to},
            {"name": "PGPASSWORD", "valueFrom": password},
        ],
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    labels = {"isa-cloud.io/client": "true"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": CLIENT, "namespace": namespace, "labels": labels},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }


def main() -> None:
    """Run all cases; exits with 1 if one failed."""
    os.environ["PATH"] = os.pathsep.join([binaries.search_path(), os.environ["PATH"]])
    nodes = Nodes("soak-postgresql", NODES)
    soak = Soak(nodes=nodes)
    cases: list[tuple[str, Callable[[], None]]] = [
        (f"{NODES} nodes get ready", nodes.up),
        ("three nodes and two Pgpools get ready", soak.installs_with_productions_values),
        ("the gate is green", soak.gate_is_green),
        ("a client writes through Pgpool", soak.client_writes),
        ("a killed primary is replaced, and Pgpool follows", soak.killed_primary_is_replaced),
        ("it comes back as a standby", soak.killed_primary_comes_back_as_a_standby),
        ("a detached node is named with its cure", soak.detached_node_is_named_with_its_cure),
        (
            "a primary that was cut off is a split brain",
            soak.cut_off_primary_is_told_as_a_split_brain,
        ),
        ("it fences itself and comes back", soak.cut_off_primary_fences_itself_and_comes_back),
    ]
    try:
        nodes.down()  # what an interrupted run left
        for words, action in cases:
            soak.case(words, action)
            if soak.failed:
                break  # each case goes on where the one before it ended
    finally:
        nodes.down()
    soak.write(
        "docs/results/soak-postgresql.md",
        "# PostgreSQL under repmgr behind Pgpool",
        "",
        f"`make soak`, {datetime.now(UTC):%Y-%m-%d}. Three real nodes, production's values, PostgreSQL 17, repmgr 5.5,",
        "Pgpool 4.6. A client writes through Pgpool, with a connection for each write.",
        "",
        *(f"- {one}" for one in soak.figures),
    )
    sys.exit(soak.failed)


if __name__ == "__main__":
    try:
        main()
    except IsaError as exc:
        sys.exit(str(exc))
