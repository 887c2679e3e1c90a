"""The images of all pods, made from programs of this machine: no registry is asked."""

from __future__ import annotations

import subprocess
from pathlib import Path

from sandbox.machine.binaries import TOOLS
from sandbox.machine.paths import cache_dir
from sandbox.nodes.images import engines, oci
from sandbox.nodes.settings import PAUSE

# Does nothing until it is ended, whatever its arguments: a pod's first container, and sidecars in name only.
IDLE = ("/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done")
BUSYBOX = "sandbox.local/busybox:1"
COREDNS = f"sandbox.local/coredns:{TOOLS['coredns'].label}"


def archives(tools: Path, binaries: dict[str, Path]) -> list[Path]:
    """Archives of the images that every node needs.

    Args:
        tools: Debian's unpacked programs.
        binaries: path of each built program.
    """
    busybox = tools / "usr/bin/busybox"
    shell = {"/bin/busybox": busybox} | {f"/bin/{one}": "busybox" for one in _applets(busybox)}
    directories = {"/tmp": 0o1777, "/proc": 0o755, "/sys": 0o755, "/dev": 0o755, "/etc": 0o755}
    images = [
        oci.Image(BUSYBOX, shell, ("/bin/sh",), directories),
        oci.Image(PAUSE, shell, IDLE, directories, user="65535:65535"),
        oci.Image(COREDNS, {"/coredns": binaries["coredns"]}, ("/coredns",), directories),
        *engines.images(shell, directories, IDLE, binaries["minio"]),
    ]
    return [oci.archive(image, cache_dir() / "images") for image in images]


def _applets(busybox: Path) -> list[str]:
    done = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split() if name != "busybox"]
