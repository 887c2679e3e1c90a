"""One embedded cluster: start, stop, status. Fault tests can stop and start single parts."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.kube import Kube
from config.models import KubernetesSettings
from errors import ArgumentError, Fault, PermanentError, TemporaryError
from sandbox import stages
from sandbox.connections import connections
from sandbox.control_plane import START_ORDER, ControlPlane
from sandbox.machine import addresses, binaries, neo4j_programs, prerequisites, processes
from sandbox.machine.paths import locked, state_dir, write_atomic
from sandbox.machine.processes import Daemon
from sandbox.nodes import simulated
from sandbox.nodes.simulated import NodeSize
from sandbox.site import keys, object_store
from sandbox.site import settings as site
from sandbox.site.settings import CONTROL_NAMESPACE

# A killed process is a zombie before its last thread has closed its ports.
PORT_SECONDS = 5
ENGINES_NAMESPACE = "isa-cloud-production"
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
AGENT = "agent"
ENGINES_GRACE_SECONDS = 20
READY_SECONDS = 300  # 3-8 s on two idle cores; slow and busy machines need more


class Sandbox:
    """A sandbox. All its state is in one directory.

    Args:
        name: its name: lower case letters, digits and dashes. Several sandboxes can run side by side.
        tell: called with a line for each step.

    Raises:
        ArgumentError: the name is invalid (it also names a directory that `down --purge` deletes).
    """

    def __init__(self, name: str = "default", tell: Callable[[str], None] = binaries.say) -> None:
        if not NAME.fullmatch(name):
            raise ArgumentError(
                [Fault("--name", f"{name!r} is not a valid name", "a-z, 0-9 and -, at most 40")]
            )
        self.name = name
        self.directory = state_dir() / name
        self._tell = tell

    # ------------------------------------------------------------------ life
    def up(
        self,
        size: NodeSize | None = None,
        ready_delay: tuple[float, float] | None = None,
        *,
        engines: bool | None = None,
    ) -> dict[str, Any]:
        """Start every part that does not run. Also works after a killed `up`.

        Args:
            size: number and size of the nodes; nodes are added, never removed. None: as before, or the default.
            ready_delay: without engines, the shortest and longest time in seconds until a pod is ready.
            engines: run engines in the pods; otherwise pods become ready by themselves. None: as before, or True.

        Returns:
            The status.

        Raises:
            ConfigurationError: the machine lacks something.
            PermanentError: another process uses a port.
            TemporaryError: a part did not start; the message has the end of its log.
        """
        started = time.monotonic()
        prerequisites.check(install=False)
        programs = binaries.ensure(tell=self._tell)
        engines = bool(self._remember("engines", engines, True))
        if engines:
            neo4j_programs.ensure(self._tell)
        with locked(self.directory / "lock"):
            plane = self._plane(programs)
            self._check_ports(plane)
            plane.write_credentials()
            for name in ("etcd", "kube-apiserver"):
                plane.start(name)
            self._await_api(plane)
            kube = self.kube()
            for name in ("kube-controller-manager", "kube-scheduler"):
                plane.start(name)
            self._install(kube, ready_delay, engines)
            self._start_kwok(plane, kube)
            simulated.ensure(kube, size)
            at = plane.addresses
            store = object_store.start(
                self.directory, at.object_store, at.object_store_console, programs["minio"]
            )
            site.ensure_secrets(kube, self.directory, store)
            self._await_nodes(kube)
            if engines:
                self.start_agent()
        self._tell(f"sandbox {self.name} is up after {time.monotonic() - started:.1f} s")
        return self.status()

    def down(self, *, purge: bool = False) -> None:
        """Stop everything; with `purge` delete its data too."""
        if self.directory.exists():
            with locked(self.directory / "lock"):
                self.stop_agent()
                self._stop_engines()
                object_store.stop(self.directory)
                self._plane({}).stop()
        # processes without a record, for example of a killed `up`
        processes.end_leftovers(self.directory / "run")
        if purge:
            addresses.release(self.directory)
            shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, part: str) -> None:
        """Start one process of the control plane again."""
        plane = self._plane(binaries.ensure())
        plane.start(part)
        if part == "kube-apiserver":
            self._await_api(plane)

    def stop(self, part: str) -> None:
        """Stop one process of the control plane: a fault for tests."""
        self._plane({}).daemon(part).stop()

    def pids(self) -> dict[str, int]:
        """Name → process id of the running processes."""
        names = [*START_ORDER, "object-store", AGENT]
        found = {name: Daemon(name, self.directory / "run").pid for name in names}
        return {name: pid for name, pid in found.items() if pid is not None}

    def status(self) -> dict[str, Any]:
        """Processes and addresses, for a person who connects by hand."""
        running = self.pids()
        up = all(name in running for name in START_ORDER)
        document: dict[str, Any] = {"name": self.name, "up": up, "processes": running}
        if (self.directory / "kubeconfig").exists():
            document["kubeconfig"] = str(self.kubeconfig)
            store = object_store.describe(
                self.directory, addresses.allocate(self.name).object_store
            )
            document["object_store"] = asdict(store)
            document["age_identity_file"] = str(keys.identity_file(self.directory, "verify"))
            document["engines"] = {}
            if up and self.has_engines:
                document["engines"] = connections(self.kube(), ENGINES_NAMESPACE)
        return document

    def start_agent(self) -> None:
        """Start the agent, which runs the engines of the pods."""
        argv = [sys.executable, "-m", "sandbox.agent", self.name]
        Daemon(AGENT, self.directory / "run").start(argv)

    def stop_agent(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop the agent. The engines keep running, and the next agent adopts them."""
        Daemon(AGENT, self.directory / "run").stop(number=number)

    # ------------------------------------------------------------------ properties
    @property
    def has_engines(self) -> bool:
        """Whether engines run in its pods."""
        return bool(self._remember("engines", None, True))

    @property
    def engines(self) -> Path:
        """Directory of the engines: homes of the pods, data of the volumes."""
        return self.directory / "engines"

    @property
    def kubeconfig(self) -> Path:
        """Administrator's kubeconfig."""
        return self.directory / "kubeconfig"

    @property
    def addresses(self) -> addresses.Addresses:
        """Its network and ports."""
        return addresses.allocate(self.name)

    def kube(self) -> Kube:
        """A client of the cluster, as administrator."""
        return Kube.connect(kubernetes_settings(self.kubeconfig))

    def binary(self, name: str) -> Path:
        """Path of a program. It is built if it is missing."""
        return binaries.ensure([name], self._tell)[name]

    def settings_environ(self) -> dict[str, str]:
        """The ISA_* variables that point the product at this sandbox."""
        store = object_store.describe(self.directory, self.addresses.object_store)
        return site.settings(self.directory, self.kubeconfig, store) | {
            # Neo4j Community is stopped for its dump
            "ISA_BACKUP__NEO4J__OFFLINE": str(self.has_engines).lower(),
            "ISA_DEPLOY__GATE": "whole" if self.has_engines else "kubernetes",
        }

    def environ(self) -> dict[str, str]:
        """This process's environment, with the settings above and the programs on the PATH."""
        path = os.pathsep.join([binaries.search_path(), os.environ.get("PATH", "")])
        return {
            **os.environ,
            **self.settings_environ(),
            "PATH": path,
            "KUBECONFIG": str(self.kubeconfig),
        }

    def set_ready_delay(self, shortest: float, longest: float) -> None:
        """Change how long pods take to get ready, in seconds."""
        for manifest in stages.pod_stages((shortest, longest)):
            self.kube().apply(manifest)

    def _stop_engines(self) -> None:
        homes = list((self.engines / "pods").glob("*/"))
        with ThreadPoolExecutor(len(homes) or 1) as pool:
            list(pool.map(lambda home: Daemon("engine", home).stop(ENGINES_GRACE_SECONDS), homes))
        processes.end_leftovers(self.engines / "pods")

    # ------------------------------------------------------------------ steps of `up`
    def _plane(self, programs: dict[str, Path]) -> ControlPlane:
        return ControlPlane(self.directory, addresses.allocate(self.name), programs)

    def _check_ports(self, plane: ControlPlane) -> None:
        running = self.pids()
        deadline = time.monotonic() + PORT_SECONDS
        for part, ports in plane.addresses.by_part().items():
            for port in () if part in running else ports:
                while not addresses.is_free(port):
                    if time.monotonic() > deadline:
                        raise PermanentError(
                            f"port {port} of 127.0.0.1, which {part} of sandbox {self.name} needs, is taken by another "
                            f"process: `isa sandbox down --name {self.name}` ends what an interrupted command left; "
                            "with --purge the sandbox also gets other ports"
                        )
                    time.sleep(0.05)

    def _await_api(self, plane: ControlPlane) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            certificate = plane.directory / "pki" / "apiserver" / "apiserver.crt"
            try:
                if certificate.exists():
                    kube = Kube.connect(kubernetes_settings(self.kubeconfig), patience=0.0)
                    kube.request("GET", "/readyz")
                    return
            except TemporaryError as exc:
                if time.monotonic() > deadline:
                    tail = plane.daemon("kube-apiserver").tail()
                    raise TemporaryError(f"the API server did not start: {exc}\n{tail}") from exc
            if (
                plane.daemon("kube-apiserver").pid is None
                and time.monotonic() > deadline - READY_SECONDS + 5
            ):
                raise TemporaryError(
                    f"the API server ended: {plane.daemon('kube-apiserver').tail()}"
                )
            time.sleep(0.1)

    def _install(self, kube: Kube, ready_delay: tuple[float, float] | None, engines: bool) -> None:
        crds = stages.crds()
        for crd in crds:
            kube.apply(crd)
        for crd in crds:
            self._await_crd(kube, crd["metadata"]["name"])
        delay = self._remember("ready-delay", list(ready_delay) if ready_delay else None, None)
        for manifest in [*stages.node_stages(), *stages.volumes()]:
            kube.apply(manifest)
        for manifest in stages.pod_stages(tuple(delay) if delay else None):
            if engines:  # the agent acts as the kubelet
                kube.delete("kwok.x-k8s.io/v1alpha1", "Stage", manifest["metadata"]["name"])
            else:
                kube.apply(manifest)

    def _remember(self, name: str, wanted: Any, default: Any) -> Any:
        """The value of this call, otherwise that of an earlier `up`, otherwise the default."""
        file = self.directory / f"{name}.json"
        if wanted is not None:
            write_atomic(file, json.dumps(wanted))
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else default

    def _await_crd(self, kube: Kube, name: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            crd = kube.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", name) or {}
            conditions = crd.get("status", {}).get("conditions", [])
            if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                return
            time.sleep(0.05)
        raise TemporaryError(f"CRD {name} was not established within {READY_SECONDS} s")

    def _start_kwok(self, plane: ControlPlane, kube: Kube) -> None:
        if plane.daemon("kwok").pid is None:
            # A new instance would wait 40 s for the node leases of a killed one. No other process holds them.
            for lease in kube.list("coordination.k8s.io/v1", "Lease", "kube-node-lease"):
                kube.delete(
                    "coordination.k8s.io/v1", "Lease", lease["metadata"]["name"], "kube-node-lease"
                )
        plane.start("kwok")

    def _await_nodes(self, kube: Kube) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if simulated.all_ready(kube):
                return
            time.sleep(0.1)
        raise TemporaryError(
            f"the nodes did not get ready: {Daemon('kwok', self.directory / 'run').tail()}"
        )


def kubernetes_settings(kubeconfig: Path) -> KubernetesSettings:
    """The Kubernetes settings for a kubeconfig, with the sandbox's namespaces."""
    return KubernetesSettings(
        kubeconfig=kubeconfig,
        namespace=ENGINES_NAMESPACE,
        control_namespace=CONTROL_NAMESPACE,
        verify_namespace="isa-cloud-verify",
    )
