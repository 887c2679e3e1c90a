"""The project's network policies, tried by connections: each way of `ways` is open or closed as it must be."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial

from cluster.kube import Manifest
from config.loading import load
from operations.environment.render import render_manifest
from sandbox.nodes.capsules import network
from tests.soak.case_table import expect
from tests.soak.nodes.cases import NodeCases, is_ready, pod
from tests.soak.nodes.ways import ENDS, OTHER, PUSHGATEWAY, SITE, STORE, WAYS, Way

FACTS = {
    "ISA_STORAGE__OBJECT__ENDPOINT": f"http://{network.CONTROL_ADDRESS}:{STORE}",
    "ISA_STORAGE__OBJECT__BUCKET": "isa-backups",
    "ISA_VERIFY__PUSHGATEWAY": f"http://{network.CONTROL_ADDRESS}:{PUSHGATEWAY}",
}
TRIES = 5  # a new policy, or a new pod, is known to all nodes after 1-3 s
LISTEN = "mkdir -p /tmp/www; for port in {ports}; do httpd -p $port -h /tmp/www; done; sleep 100000 & wait"
# Prints a line for each HOST:PORT. Every server here answers an HTTP request; wget of Debian's static busybox crashes.
PROBE = r"""
for end in "$@"; do
    host=${end%:*} port=${end##*:} verdict=closed
    case $port in
        53) timeout 4 nslookup kubernetes.default.svc.cluster.local "$host" > /dev/null 2>&1 && verdict=open ;;
        *) printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 2 "$host" "$port" 2> /dev/null | grep -q . && verdict=open ;;
    esac
    echo "$end $verdict"
done
"""


@dataclass
class PolicyCases(NodeCases):
    """One case a way.

    Attributes:
        addresses: end → where it listens.
        hosts: end → node of its pod.
    """

    addresses: dict[str, str] = field(default_factory=dict)
    hosts: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        """Try all."""
        self.case(f"pods of {len(ENDS)} kinds run, and servers outside", self.start)
        by_source: defaultdict[str, list[Way]] = defaultdict(list)
        for way in WAYS:
            by_source[way.source].append(way)
        for source, ways in by_source.items():
            verdicts = self.settled(source, ways)
            for way in ways:
                self.case(str(way), partial(self.check, way, verdicts))
        self.case("ways lead within a node and between nodes", self.are_within_and_between)
        for name, end in ENDS.items():
            if name in self.pods:
                self.kube.delete("v1", "Pod", self.pods[name], end.namespace)

    def start(self) -> None:
        """Pods that listen and ask, in all namespaces, and servers on the control plane's address."""
        for manifest in policies():
            self.kube.apply(manifest)
        for name, labels in SITE.items():
            self.kube.apply(_namespace(name, labels))
        for port in (STORE, PUSHGATEWAY, OTHER):
            served = self.nodes.directory / "nothing"
            served.mkdir(exist_ok=True)
            argv = ["-m", "http.server", str(port), "--bind", network.CONTROL_ADDRESS]
            self.nodes.control.start(
                f"outside-{port}", [sys.executable, *argv, "--directory", str(served)]
            )
        for name, made in self.pods.items():
            end = ENDS[name]
            script = LISTEN.format(ports=" ".join(map(str, end.listens)))
            manifest = pod(made, script, labels=dict(end.labels), cpu="10m", memory="16Mi")
            manifest["metadata"]["namespace"] = end.namespace
            self.kube.create(manifest)
        for name, made in self.pods.items():
            where = ENDS[name].namespace
            self.until(partial(self._runs, made, where), f"{made} runs")
            live = self.kube.get("v1", "Pod", made, where) or {}
            self.addresses[name] = live["status"]["podIP"]
            self.hosts[name] = live["spec"]["nodeName"]
        self.addresses["DNS"] = network.DNS_ADDRESS
        self.addresses |= {n: network.CONTROL_ADDRESS for n, e in ENDS.items() if not e.namespace}

    @property
    def pods(self) -> dict[str, str]:
        """End → name of its pod."""
        names = [name for name, end in ENDS.items() if end.namespace not in ("", "kube-system")]
        return {name: f"end-{number}" for number, name in enumerate(names)}

    def settled(self, source: str, ways: list[Way]) -> dict[str, str]:
        """What a pod reaches: as soon as all is as expected, or at last."""
        wanted = {self._at(way): "open" if way.is_open else "closed" for way in ways}
        found: dict[str, str] = {}
        for _ in range(TRIES):
            found = self.probe(source, [*wanted])
            if found == wanted:
                break
        return found

    def probe(self, source: str, ends: list[str]) -> dict[str, str]:
        """HOST:PORT → `open` or `closed`, by connections from a pod."""
        argv = [
            str(self.nodes.program("kubectl")), f"--kubeconfig={self.nodes.kubeconfig}", "exec",
            "-n", ENDS[source].namespace, self.pods[source], "--", "sh", "-c", PROBE, "probe", *ends,
        ]  # fmt: skip
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        lines = [line.split() for line in done.stdout.splitlines()]
        return {line[0]: line[1] for line in lines}

    def check(self, way: Way, verdicts: dict[str, str]) -> None:
        wanted = "open" if way.is_open else "closed"
        found = verdicts.get(self._at(way), "not tried")
        expect(found == wanted, f"{self._at(way)} is {found}")

    def are_within_and_between(self) -> None:
        """Packets within a node take another path through its filters than those between nodes."""
        tried = {
            (way.is_open, self.hosts[way.source] == self.hosts[way.target])
            for way in WAYS
            if way.target in self.hosts
        }
        expect(len(tried) == 4, f"only open, on one node: {tried}")

    def _at(self, way: Way) -> str:
        return f"{self.addresses.get(way.target, '')}:{way.port}"

    def _runs(self, name: str, namespace: str) -> bool:
        return is_ready(self.kube.get("v1", "Pod", name, namespace) or {})


def policies() -> list[Manifest]:
    """The project's namespaces, quotas and network policies."""
    settings = load("sandbox", environ=FACTS)
    manifests = render_manifest(settings.platform.namespace_manifest, settings)
    return [one for one in manifests if one["kind"] in ("Namespace", "NetworkPolicy")]


def _namespace(name: str, labels: dict[str, str]) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
