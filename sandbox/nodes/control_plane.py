"""The sandbox's control plane inside a capsule, for nodes with a kubelet of their own.

What differs: it listens on the nodes' bridge, knows each node's token, signs in at kubelets by a certificate (they
take no token from an API server), and all controllers run.
"""

from __future__ import annotations

import secrets
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from sandbox.control_plane import ControlPlane
from sandbox.machine.paths import write_atomic
from sandbox.nodes.capsules import network
from sandbox.nodes.capsules.capsule import Capsule

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
# An API server reads its tokens once: there is one for every node that may join later.
NAMES = tuple(f"node-{number}" for number in range(1, 33))
# The usual one. Policies see it, not the Service's 443: a packet's target is replaced before it is filtered.
API_PORT = 6443
PROXY, ROUTER = "system:kube-proxy", "kube-router"


@dataclass(frozen=True)
class NodesControlPlane(ControlPlane):
    """The processes of one sandbox with real nodes.

    Attributes:
        capsule: that they run in.
    """

    capsule: Capsule = field(kw_only=True)

    @property
    def host(self) -> str:
        """The one name that both the capsule and the relay of the machine serve, and that the certificate holds."""
        return "localhost"

    @property
    def url(self) -> str:
        """Of the API server, as nodes and pods reach it."""
        return f"https://{network.CONTROL_ADDRESS}:{API_PORT}"

    @property
    def inner_kubeconfig(self) -> Path:
        """Administrator's kubeconfig for programs in the nodes' network."""
        return self.directory / "kubeconfig-inside"

    @property
    def certificate(self) -> Path:
        """By which clients know the API server."""
        return self._keys / "apiserver" / "apiserver.crt"

    @property
    def kubelet_ca(self) -> Path:
        """Who signs the API server's certificate as a client of kubelets."""
        return self._keys / "kubelet-ca.crt"

    def token(self, user: str) -> str:
        """Token of a user."""
        lines = (self._keys / "tokens.csv").read_text(encoding="utf-8").splitlines()
        (token,) = (line.split(",")[0] for line in lines if line.split(",")[1] == user)
        return token

    def start(self, name: str) -> None:
        """Start one process in the capsule unless it runs."""
        self.daemon(name).start(
            self.capsule.command(str(self.binaries[name]), *self.arguments(name))
        )

    def write_credentials(self) -> None:
        """Make the tokens, the keys and the kubeconfig, once."""
        super().write_credentials()
        tokens = self._keys / "tokens.csv"
        text = tokens.read_text(encoding="utf-8")
        users = {f"system:node:{name}": "system:nodes" for name in NAMES} | {
            PROXY: "",
            ROUTER: "",
        }
        for user, group in users.items():
            if f",{user}," not in text:
                end = f',"{group}"' if group else ""
                text += f"{secrets.token_hex(24)},{user},{user}{end}\n"
        write_atomic(tokens, text)
        if not self.kubelet_ca.exists():
            self._make_kubelet_client()
        document = yaml.safe_load(self.kubeconfig.read_text(encoding="utf-8"))
        document["clusters"][0]["cluster"]["server"] = self.url
        write_atomic(self.inner_kubeconfig, yaml.safe_dump(document))

    def arguments(self, name: str) -> list[str]:
        """Flags of one process."""
        flags = {flag.partition("=")[0]: flag for flag in super().arguments(name)}
        match name:
            case "kube-apiserver":
                del flags["--endpoint-reconciler-type"]
                own = [
                    "--bind-address=0.0.0.0", f"--secure-port={API_PORT}",
                    f"--advertise-address={network.CONTROL_ADDRESS}",
                    "--enable-admission-plugins=NodeRestriction",
                    f"--kubelet-client-certificate={self._keys / 'kubelet-client.crt'}",
                    f"--kubelet-client-key={self._keys / 'kubelet-client.key'}",
                    f"--service-cluster-ip-range={network.SERVICES}",
                ]  # fmt: skip
            case "kube-controller-manager":
                own = [
                    f"--kubeconfig={self.inner_kubeconfig}",
                    "--controllers=*",
                    f"--cluster-cidr={network.PODS}",
                    "--node-monitor-grace-period=50s",
                ]
            case "kube-scheduler":
                own = [f"--kubeconfig={self.inner_kubeconfig}"]
            case _:
                own = []
        return [*(flags | {flag.partition("=")[0]: flag for flag in own}).values()]

    @property
    def _keys(self) -> Path:
        return self.directory / "pki"

    def _make_kubelet_client(self) -> None:
        """A CA and one certificate of the group that kubelets let do everything."""
        request, client = self._keys / "kubelet-client.csr", self._keys / "kubelet-client"
        _openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/O=system:masters/CN=kube-apiserver",
            "-keyout", f"{client}.key", "-out", str(request),
        )  # fmt: skip
        _openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=kubelets",
            "-keyout", str(self._keys / "kubelet-ca.key"), "-out", str(self.kubelet_ca),
        )  # fmt: skip
        _openssl(
            "x509", "-req", "-in", str(request), "-CA", str(self.kubelet_ca),
            "-CAkey", str(self._keys / "kubelet-ca.key"), "-CAcreateserial", "-days", "3650",
            "-out", f"{client}.crt",
        )  # fmt: skip


def _openssl(*args: str) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True)
