"""One real node: containerd, kubelet, kube-proxy and kube-router in a capsule.

`settings` has what they read.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.kube import Manifest
from cluster.polling import polling
from errors import PermanentError, TemporaryError
from sandbox.machine.paths import write_atomic
from sandbox.nodes import settings
from sandbox.nodes.capsules import network
from sandbox.nodes.capsules.capsule import Capsule
from sandbox.nodes.control_plane import PROXY, ROUTER, NodesControlPlane
from sandbox.nodes.simulated import ZONES

CONTAINERD_SECONDS = 60.0
CNI_PLUGINS = ("bridge", "loopback", "host-local", "portmap")


@dataclass(frozen=True)
class Node:
    """One node.

    Attributes:
        number: from 1.
        capsule: its walls.
        plane: whose node it is.
        binaries: path of each program.
    """

    number: int
    capsule: Capsule
    plane: NodesControlPlane
    binaries: dict[str, Path]

    @property
    def name(self) -> str:
        """In the cluster."""
        return self.capsule.name

    def manifest(self) -> Manifest:
        """The node as kubelet finds it: with its zone, and with the range of its pods, which kube-router reads."""
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self.name,
                "labels": {
                    "kubernetes.io/hostname": self.name,
                    "kubernetes.io/os": "linux",
                    "topology.kubernetes.io/zone": f"zone-{(self.number - 1) % ZONES + 1}",
                },
            },
            "spec": {"podCIDR": network.pods(self.number), "podCIDRs": [network.pods(self.number)]},
        }

    def start_containerd(self) -> None:
        """Start it and wait for its answer.

        Raises:
            TemporaryError: it does not answer; with the end of its log.
        """
        self._write("cni/sandbox.conflist", settings.cni(self.number, self.directory))
        file = self.directory / "containerd.toml"
        write_atomic(
            file,
            settings.containerd(self.directory, [self.binaries[one].parent for one in CNI_PLUGINS]),
        )
        programs = [self.binaries[name].parent for name in ("containerd-shim-runc-v2", "ctr")]
        argv = [str(self.binaries["containerd"]), "--config", str(file)]
        self.capsule.start("containerd", argv, programs)
        for _ in polling(CONTAINERD_SECONDS, pause=0.05):
            if self._ctr("version").returncode == 0:
                return
        tail = self.capsule.daemon("containerd").tail()
        raise TemporaryError(f"containerd of node {self.name} does not answer: {tail}")

    def load(self, archive: Path) -> None:
        """Bring a further image to this node.

        Raises:
            PermanentError: containerd refuses it.
        """
        done = self._ctr("-n", "k8s.io", "images", "import", str(archive))
        if done.returncode != 0:
            raise PermanentError(f"node {self.name} takes no image {archive}: {done.stderr[-500:]}")

    def start(self) -> None:
        """Start kubelet and kube-proxy."""
        kubelet = settings.kubelet(self.number, self.directory, self.plane.kubelet_ca)
        account = self._kubeconfig("kubelet", f"system:node:{self.name}")
        self._run(
            "kubelet", f"--config={self._write('kubelet.json', kubelet)}", f"--kubeconfig={account}",
            f"--root-dir={self.directory / 'kubelet'}", f"--cert-dir={self.directory / 'pki'}",
            f"--hostname-override={self.name}", f"--node-ip={network.address(self.number)}",
        )  # fmt: skip
        proxy = settings.kube_proxy(self.name, self._kubeconfig("kube-proxy", PROXY))
        self._run("kube-proxy", f"--config={self._write('kube-proxy.json', proxy)}")

    def start_router(self) -> None:
        """Start what enforces network policies; it needs the node's address in its status."""
        self._run(
            "kube-router", "--run-firewall=true", "--run-router=false", "--run-service-proxy=false",
            "--run-loadbalancer=false", f"--kubeconfig={self._kubeconfig('kube-router', ROUTER)}",
            f"--hostname-override={self.name}", f"--service-cluster-ip-range={network.SERVICES}", "--enable-ipv6=false",
        )  # fmt: skip

    @property
    def directory(self) -> Path:
        """Its state."""
        return self.capsule.directory

    @property
    def images(self) -> Path:
        """Directory of containerd."""
        return self.directory / "containerd"

    @property
    def socket(self) -> Path:
        """Of containerd, inside the capsule."""
        return settings.SOCKET

    def _run(self, program: str, *arguments: str) -> None:
        self.capsule.start(program, [str(self.binaries[program]), *arguments])

    def _ctr(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = self.capsule.command(str(self.binaries["ctr"]), "-a", str(self.socket), *words)
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    def _write(self, name: str, document: Any) -> Path:
        file = self.directory / name
        write_atomic(file, json.dumps(document, indent=1))
        return file

    def _kubeconfig(self, program: str, user: str) -> Path:
        cluster = {"server": self.plane.url, "certificate-authority": str(self.plane.certificate)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "isa", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": self.plane.token(user)}}],
            "contexts": [{"name": "isa", "context": {"cluster": "isa", "user": user}}],
            "current-context": "isa",
        }
        file = self.directory / f"{program}.kubeconfig"
        write_atomic(file, yaml.safe_dump(document))
        return file
