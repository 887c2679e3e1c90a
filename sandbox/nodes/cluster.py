"""A cluster of real nodes on this machine: up, down, status."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from string import Template
from typing import Any

import yaml

from cluster.kube import Kube, Manifest
from errors import TemporaryError
from sandbox import stages
from sandbox.cluster import kubernetes_settings
from sandbox.machine import addresses, binaries, processes
from sandbox.machine.paths import locked, state_dir
from sandbox.machine.processes import Daemon
from sandbox.nodes.capsules import capsule, network
from sandbox.nodes.capsules.capsule import Capsule
from sandbox.nodes.control_plane import API_PORT, NAMES, PROGRAMS, NodesControlPlane
from sandbox.nodes.images import debian, image_store, pods
from sandbox.nodes.node import Node
from sandbox.nodes.simulated import NodeSize, all_ready

MANIFESTS = Path(__file__).with_name("manifests") / "nodes.yaml"
RELAY, PROVISIONER = "relay", "provisioner"
READY_SECONDS = 300.0  # 10-20 s on two idle cores
SIZE = NodeSize()


class Nodes:
    """A cluster of real nodes by its name; all its state is in one directory.

    Args:
        name: several may run side by side.
        count: of the nodes; more are added, none removed.
        tell: gets a line for each step.
    """

    def __init__(
        self, name: str = "nodes", count: int = 3, tell: Callable[[str], None] = binaries.say
    ) -> None:
        self.name = name
        self.count = count
        self.directory = state_dir() / name
        self._tell = tell

    @property
    def kubeconfig(self) -> Path:
        """Administrator's kubeconfig, for this machine."""
        return self.directory / "kubeconfig"

    @property
    def inner_kubeconfig(self) -> Path:
        """Administrator's kubeconfig, for programs in the nodes' network."""
        return self._plane.inner_kubeconfig

    def kube(self) -> Kube:
        """The cluster, as administrator."""
        return Kube.connect(kubernetes_settings(self.kubeconfig))

    def program(self, name: str) -> Path:
        """Path of a program."""
        return self._binaries[name]

    def up(self) -> None:
        """Bring everything up that is not.

        Raises:
            ConfigurationError: the machine does not let us make nodes, or lacks something.
            TemporaryError: a part did not come up; with the end of its log.
        """
        started = time.monotonic()
        capsule.check()
        self._programs()
        with locked(self.directory / "lock"):
            self.control.up()
            plane = self._plane
            plane.write_credentials()
            if not self._runs(PROGRAMS[0]):
                network.make_bridge(self.control)
            self.start_relay(RELAY, plane.addresses.apiserver, API_PORT)
            for program in PROGRAMS[:2]:
                plane.start(program)
            self._await("the API server", self._answers, plane.daemon("kube-apiserver"))
            for program in PROGRAMS[2:]:
                plane.start(program)
            self._tell(f"API server after {time.monotonic() - started:.1f} s")
            kube = self.kube()
            for manifest in self._manifests():
                kube.apply(manifest)
            self._start_helper(PROVISIONER, "volumes", self.kubeconfig, self.directory / "volumes")
            archives = pods.archives(self._tools, self._binaries)
            store = image_store.ensure(archives, self._binaries)
            nodes = self._nodes()
            for node in nodes:
                self._join(node, kube)
            apiserver = plane.daemon("kube-apiserver")
            self._await("the nodes' size", lambda: self._has_size(kube, nodes[0].name), apiserver)
            with ThreadPoolExecutor(len(nodes)) as pool:
                list(pool.map(lambda node: self._start(node, store), nodes))
            self._await("the nodes", lambda: all_ready(kube), nodes[0].capsule.daemon("kubelet"))
            for node in nodes:  # it reads the address that kubelet has written
                node.start_router()
            self._await("DNS", lambda: self._has_dns(kube), nodes[0].capsule.daemon("kubelet"))
        self._tell(f"{self.count} nodes are up after {time.monotonic() - started:.1f} s")

    def down(self) -> None:
        """End everything, and forget it."""
        if not self.directory.exists():
            return
        with locked(self.directory / "lock"):
            for inner in [*self.capsules(), self.control]:
                inner.down()
        processes.end_leftovers(self.directory)
        addresses.release(self.directory)
        shutil.rmtree(self.directory)

    def load(self, archives: Iterable[Path]) -> None:
        """Bring further images to every node."""
        files, nodes = list(archives), self._nodes()
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(lambda node: [node.load(file) for file in files], nodes))

    def cut(self, name: str) -> None:
        """Cut a node's network off; it stays up, with its pods."""
        network.cut(self.control, NAMES.index(name) + 1)

    def reconnect(self, name: str) -> None:
        """Connect it again."""
        network.reconnect(self.control, NAMES.index(name) + 1)

    def status(self) -> dict[str, Any]:
        """What a person needs to look at it."""
        inner = [self.control, *self.capsules()]
        return {
            "name": self.name,
            "kubeconfig": str(self.kubeconfig),
            "up": {one.name: one.is_up for one in inner},
            "enter": "nsenter -t $(cat DIRECTORY/NODE/pid) -m -n -p -u -i -C",
            "directory": str(self.directory),
        }

    def start_relay(self, name: str, port: int, target: int) -> None:
        """Carry a port of this machine's loopback to one of the control plane's, unless that is done."""
        self._start_helper(name, "relay", self.control.pid, port, target)

    # ------------------------------------------------------------------ parts
    @cached_property
    def _tools(self) -> Path:
        return debian.node_programs()

    @cached_property
    def _binaries(self) -> dict[str, Path]:
        return self._programs()

    def _programs(self) -> dict[str, Path]:
        return binaries.ensure((*binaries.CLUSTER_TOOLS, *binaries.NODE_TOOLS), self._tell)

    @cached_property
    def control(self) -> Capsule:
        """Of the control plane."""
        return Capsule("control", f"isa-{self.name}", self.directory / "control", self._tools)

    @cached_property
    def _plane(self) -> NodesControlPlane:
        at = addresses.allocate(self.name)
        return NodesControlPlane(self.directory, at, self._binaries, capsule=self.control)

    def capsules(self) -> list[Capsule]:
        """Of the nodes that there are or will be."""
        made = {one.name for one in self.directory.glob("node-*")}
        return [
            Capsule(
                name,
                f"isa-{self.name}",
                self.directory / name,
                self._tools,
            )
            for number, name in enumerate(NAMES, 1)
            if name in made or number <= self.count
        ]

    def _nodes(self) -> list[Node]:
        return [
            Node(NAMES.index(one.name) + 1, one, self._plane, self._binaries)
            for one in self.capsules()
        ]

    def _runs(self, program: str) -> bool:
        return self._plane.daemon(program).pid is not None

    # ------------------------------------------------------------------ steps of `up`
    def _start_helper(self, name: str, module: str, *arguments: object) -> None:
        """Start a program of ours on the machine unless it runs."""
        argv = [sys.executable, "-m", f"sandbox.nodes.helpers.{module}", *map(str, arguments)]
        Daemon(name, self.directory / "run").start(argv, cwd=Path(__file__).parents[2])

    def _join(self, node: Node, kube: Kube) -> None:
        """Make a node's walls and network, and let the others know its pods."""
        if node.capsule.is_up:
            return
        node.capsule.up()
        network.connect(self.control, node.capsule, node.number)
        others = [one for one in self._nodes() if one.number != node.number and one.capsule.is_up]
        for other in others:
            network.introduce(other.capsule, node.number)
            network.introduce(node.capsule, other.number)
        if kube.get("v1", "Node", node.name) is None:
            kube.create(node.manifest())

    def _start(self, node: Node, store: Path) -> None:
        if not node.images.exists():
            image_store.link(store, node.images)
        node.start_containerd()
        node.start()

    def _manifests(self) -> list[Manifest]:
        text = Template(MANIFESTS.read_text(encoding="utf-8"))
        values = {"coredns": pods.COREDNS, "cpu": SIZE.cpu, "memory": SIZE.memory}
        own = list(yaml.safe_load_all(text.substitute(values)))
        return [*own, *stages.reclaim_policies()]

    def _answers(self) -> bool:
        if not self._plane.certificate.exists():
            return False
        try:
            kube = Kube.connect(kubernetes_settings(self.kubeconfig), patience=0.0)
            kube.request("GET", "/readyz")
        except TemporaryError:
            return False
        return True

    def _has_size(self, kube: Kube, node: str) -> bool:
        """Whether the API server replaces the size that a kubelet reports; a new policy takes a moment."""
        reported = {"status": {name: {"cpu": "1"} for name in ("capacity", "allocatable")}}
        answer = kube.request(
            "PATCH",
            f"/api/v1/nodes/{node}/status",
            body=reported,
            query={"dryRun": "All"},
            content_type="application/merge-patch+json",
        )
        return bool(answer["status"]["allocatable"]["cpu"] == SIZE.cpu)

    def _has_dns(self, kube: Kube) -> bool:
        found = kube.get("apps/v1", "Deployment", "coredns", "kube-system") or {}
        return bool(found.get("status", {}).get("readyReplicas"))

    def _await(self, what: str, condition: Callable[[], bool], asked: Daemon) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not condition():
            if time.monotonic() > deadline or asked.pid is None:
                raise TemporaryError(f"{what} did not get ready: {asked.name} says\n{asked.tail()}")
            time.sleep(0.2)
