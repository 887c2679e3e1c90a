"""The processes of the control plane with their flags, in the order of their start. They stop in reverse order.

The flags were found by experiment on Kubernetes 1.36.3 and KWOK 0.8.0:

- If etcd stops first, the API server does not end on SIGTERM and keeps its port. Hence the order.
- The API server refuses loopback addresses in Endpoints, so the controllers that write them are off.
- Without `--kubelet-preferred-address-types`, exec and port-forward connect to the node's name.
- Nodes have leases of 40 s, and a grace period of 120 s. Without leases nodes flap, and pods lose their readiness.
"""

from __future__ import annotations

import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml

from sandbox.machine.addresses import Addresses
from sandbox.machine.paths import write_atomic
from sandbox.machine.processes import Daemon

CONTEXT = "isa-sandbox"
START_ORDER = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")


@dataclass(frozen=True)
class ControlPlane:
    """The processes of one sandbox.

    Attributes:
        directory: directory of its state.
        addresses: its ports.
        binaries: name → path of a program.
    """

    directory: Path
    addresses: Addresses
    binaries: dict[str, Path]

    @property
    def host(self) -> str:
        """Host of the API server in the administrator's kubeconfig; its certificate has this name."""
        return "127.0.0.1"

    @property
    def kubeconfig(self) -> Path:
        """Administrator's kubeconfig."""
        return self.directory / "kubeconfig"

    def daemon(self, name: str) -> Daemon:
        """One of its processes."""
        return Daemon(name, self.directory / "run")

    def start(self, name: str) -> None:
        """Start one process unless it runs."""
        self.daemon(name).start([str(self.binaries[name]), *self.arguments(name)])

    def stop(self) -> None:
        """Stop all processes in reverse order of their start."""
        for name in reversed(START_ORDER):
            self.daemon(name).stop()

    def write_credentials(self) -> None:
        """Create the token, the keys and the kubeconfig, if they do not exist."""
        keys = self.directory / "pki"
        keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        tokens = keys / "tokens.csv"
        if not tokens.exists():
            write_atomic(tokens, f'{secrets.token_hex(24)},admin,admin,"system:masters"\n')
        if not (keys / "service-account.key").exists():
            _openssl("genrsa", "-out", str(keys / "service-account.key"), "2048")
        if not (keys / "kwok.key").exists():
            _openssl(
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=kwok",
                "-keyout", str(keys / "kwok.key"), "-out", str(keys / "kwok.crt"),
            )  # fmt: skip
        write_atomic(
            self.kubeconfig,
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [
                        {
                            "name": CONTEXT,
                            "cluster": {
                                "server": f"https://{self.host}:{self.addresses.apiserver}",
                                # the API server creates it at its first start
                                "certificate-authority": str(keys / "apiserver" / "apiserver.crt"),
                            },
                        }
                    ],
                    "users": [
                        {
                            "name": "admin",
                            "user": {"token": tokens.read_text(encoding="utf-8").split(",")[0]},
                        }
                    ],
                    "contexts": [
                        {"name": CONTEXT, "context": {"cluster": CONTEXT, "user": "admin"}}
                    ],
                    "current-context": CONTEXT,
                }
            ),
        )

    def arguments(self, name: str) -> list[str]:
        """Flags of one process."""
        at, keys, kubeconfig = self.addresses, self.directory / "pki", str(self.kubeconfig)
        etcd = f"http://127.0.0.1:{at.etcd}"
        peer = f"http://127.0.0.1:{at.etcd_peer}"
        match name:
            case "etcd":
                return [
                    "--name=sandbox", f"--data-dir={self.directory / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn",
                    f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}",
                    f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
                    f"--initial-cluster=sandbox={peer}",
                ]  # fmt: skip
            case "kube-apiserver":
                return [
                    f"--etcd-servers={etcd}", f"--cert-dir={keys / 'apiserver'}",
                    "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
                    f"--secure-port={at.apiserver}", "--endpoint-reconciler-type=none",
                    "--service-account-issuer=https://kubernetes.default.svc",
                    f"--service-account-key-file={keys / 'service-account.key'}",
                    f"--service-account-signing-key-file={keys / 'service-account.key'}",
                    f"--token-auth-file={keys / 'tokens.csv'}", "--authorization-mode=Node,RBAC",
                    "--allow-privileged", "--kubelet-preferred-address-types=InternalIP",
                    "--service-cluster-ip-range=10.96.0.0/16",
                ]  # fmt: skip
            case "kube-controller-manager":
                return [
                    f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0",
                    "--controllers=*,-endpointslice-controller,-endpoints-controller",
                    "--use-service-account-credentials", "--node-monitor-grace-period=120s",
                    f"--service-account-private-key-file={keys / 'service-account.key'}",
                    f"--root-ca-file={keys / 'apiserver' / 'apiserver.crt'}",
                ]  # fmt: skip
            case "kube-scheduler":
                return [f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0"]
            case _:
                return [
                    f"--kubeconfig={kubeconfig}", "--manage-all-nodes", f"--cidr={at.pod_network}",
                    "--node-ip=127.0.0.1", f"--node-port={at.kwok}", f"--server-address=127.0.0.1:{at.kwok}",
                    f"--tls-cert-file={keys / 'kwok.crt'}", f"--tls-private-key-file={keys / 'kwok.key'}",
                    "--node-lease-duration-seconds=40", "--enable-crds=Stage,Logs,PortForward,Exec", "--v=WARN",
                ]  # fmt: skip


def _openssl(*args: str) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True)
