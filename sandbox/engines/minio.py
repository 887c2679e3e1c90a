"""MinIO: four servers with one drive each, as one erasure set."""

from __future__ import annotations

import re
from pathlib import Path

from sandbox.agent.pod import NotStartable, Pod
from sandbox.engines.base import Engine, Launch

CONTAINER = "minio"
COMMAND = re.compile(r"minio server http://\S+?(?P<path>/\S+)")


def prepare(pod: Pod) -> Launch:
    """The chart's command line with addresses and drives of this machine."""
    container = next(c for c in pod.containers if c["name"] == CONTAINER)
    if not COMMAND.search(container["command"][-1]):
        raise NotStartable("RunContainerError", "the command starts no distributed MinIO")
    link, volume = _drive(pod, pod.name).parent, pod.volume("export")
    link.unlink(missing_ok=True)
    link.symlink_to(volume)
    _drive(pod, pod.name).mkdir(
        exist_ok=True
    )  # MinIO accepts no link as a drive, but a directory behind a link
    drives = [f"http://{at}:9000{_drive(pod, name)}" for name, at in pod.peers.items()]
    at = pod.address
    listen = ("--address", f"{at}:9000", "--console-address", f"{at}:9001")
    # MinIO treats every loopback address as local, unless it runs in Kubernetes and knows its own name
    # (cmd/endpoint.go; tested).
    environ = {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "_MINIO_SERVER_LOCAL": f"{at}:9000",
        "MINIO_CI_CD": "1",  # accept directories of the root disk as drives
        "MINIO_UPDATE": "off",
    }
    argv = (str(pod.host.programs("minio")), "server", *listen, *drives)
    return Launch(argv, pod.environment(container) | environ)


def _drive(pod: Pod, name: str) -> Path:
    """The path of a member's drive, which is the same on all members."""
    root = pod.host.directory / "drives"
    root.mkdir(exist_ok=True)
    return root / f"{pod.namespace}_{name}" / "export"


ENGINE = Engine(CONTAINER, real=True, prepare=prepare)
