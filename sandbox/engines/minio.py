"""MinIO: four servers with one drive each, as one erasure set."""

from __future__ import annotations

import re
from pathlib import Path

from sandbox.agent.pod import NotStartable, Pod
from sandbox.engines.base import Engine, Launch

CONTAINER = "minio"
COMMAND = re.compile(r"minio server http://\S+?(?P<path>/\S+)")


def prepare(pod: Pod) -> Launch:
    """Compose the command line of the chart with addresses and drives of this machine."""
    container = next(c for c in pod.containers if c["name"] == CONTAINER)
    if not COMMAND.search(container["command"][-1]):
        raise NotStartable("RunContainerError", "the command starts no distributed MinIO")
    link, volume = _drive(pod, pod.name).parent, pod.volume("export")
    link.unlink(missing_ok=True)
    link.symlink_to(volume)
    _drive(pod, pod.name).mkdir(
        exist_ok=True
    )  # MinIO takes no link for a drive, but a directory behind one
    drives = [f"http://{at}:9000{_drive(pod, name)}" for name, at in pod.peers.items()]
    at = pod.address
    listen = ("--address", f"{at}:9000", "--console-address", f"{at}:9001")
    # Every loopback address is "local" to MinIO unless it runs in Kubernetes and is told which one is its own;
    # found in its cmd/endpoint.go and tried.
    environ = {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "_MINIO_SERVER_LOCAL": f"{at}:9000",
        "MINIO_CI_CD": "1",  # takes directories of the root disk as drives
        "MINIO_UPDATE": "off",
    }
    argv = (str(pod.host.programs("minio")), "server", *listen, *drives)
    return Launch(argv, pod.environment(container) | environ)


def _drive(pod: Pod, name: str) -> Path:
    """Path by which all members call a member's drive, whatever volume is behind it."""
    root = pod.host.directory / "drives"
    root.mkdir(exist_ok=True)
    return root / f"{pod.namespace}_{name}" / "export"


ENGINE = Engine(CONTAINER, real=True, prepare=prepare)
