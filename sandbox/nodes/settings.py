"""What a node's programs read.

Why each setting is there was found by trying, with cgroup v1 and a root that lacks CAP_SYS_RESOURCE:
- nothing may get an OOM score below 0 then, hence `oom_score` and `restrict_oom_score_adj`;
- kubelet refuses cgroup v1 by default (`failCgroupV1`);
- its thresholds of eviction in percent trip on a disk that others fill;
- imported images cannot be pulled again, so no garbage collection may take them;
- kube-proxy may not write the machine's conntrack limits, and ipvs needs a kernel module.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sandbox.nodes.capsules import network

PAUSE = "sandbox.local/pause:1"
SOCKET = Path("/run/containerd/containerd.sock")  # inside the node
DISABLED = ("blockfile", "btrfs", "devmapper", "erofs", "native", "zfs")


def containerd(
    directory: Path,
    cni: Sequence[Path],
    state: Path = Path("/run/containerd"),
    socket: Path = SOCKET,
) -> str:
    """Settings of containerd, in TOML.

    Args:
        directory: of the node.
        cni: directories of the CNI plugins.
        state: what it keeps while it runs.
        socket: that it answers on.
    """
    disabled = [f"io.containerd.snapshotter.v1.{name}" for name in DISABLED]
    disabled += ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]
    return f"""\
version = 3
root = "{directory}/containerd"
state = "{state}"
oom_score = 0
disabled_plugins = [{", ".join(f'"{name}"' for name in disabled)}]
[grpc]
  address = "{socket}"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = [{", ".join(f'"{path}"' for path in cni)}]
    conf_dir = "{directory}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "/usr/sbin/runc"
      SystemdCgroup = false
"""


def cni(number: int, directory: Path) -> dict[str, Any]:
    """The pods' network on a node: a bridge, and its range of addresses."""
    addresses = {
        "type": "host-local",
        "dataDir": str(directory / "addresses"),
        "ranges": [[{"subnet": network.pods(number)}]],
    }
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isDefaultGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "isa", "plugins": [bridge | {"ipam": addresses}, ports]}


def kubelet(number: int, directory: Path, client_ca: Path) -> dict[str, Any]:
    """Settings of kubelet."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": "/",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "address": network.address(number),
        "port": 10250,
        "podLogsDir": str(directory / "log/pods"),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(client_ca)},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDomain": "cluster.local",
        "clusterDNS": [network.DNS_ADDRESS],
        "resolvConf": "/etc/resolv.conf",
        "failSwapOn": False,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "2Gi",
            "imagefs.available": "2Gi",
        },
        "imageGCHighThresholdPercent": 100,
        "nodeLeaseDurationSeconds": 40,
        "serializeImagePulls": False,
        "systemReserved": {"memory": "1Gi"},
    }


def kube_proxy(name: str, kubeconfig: Path) -> dict[str, Any]:
    """Settings of kube-proxy."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": network.PODS,
        "hostnameOverride": name,
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "conntrack": {
            "maxPerCore": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }
