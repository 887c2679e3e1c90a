"""The images of the engines, under the names that the sandbox's settings pin.

The programs are those of the sandbox without containers, so their versions are the ones in docs/reference/sandbox.md.
Entry points and paths are those that the charts rely on.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from config.loading import load
from sandbox.nodes.images import oci

ENTRYPOINT = Path(__file__).with_name("minio-entrypoint.sh")
PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
# Components with images.
RUNNING = ("nats", "minio")
# Sidecars that run in name only: settings `images.NAME`.
IDLE = ("nats_reloader", "nats_exporter")


def images(
    shell: Mapping[str, Path | str],
    directories: Mapping[str, int],
    idle: tuple[str, ...],
    minio: Path,
) -> list[oci.Image]:
    """The images of the engines that run on real nodes so far.

    Args:
        shell: files of a shell, part of each image: probes and hooks of charts call it.
        directories: empty ones, with modes.
        idle: command that does nothing until it is ended.
        minio: MinIO's server.
    """
    names = load("sandbox", environ={}).images

    def image(name: str, programs: dict[str, Path], command: tuple[str, ...]) -> oci.Image:
        reference = getattr(names, name).reference
        return oci.Image(reference, {**shell, **programs}, command, directories, PATH)

    nats, entrypoint = "/usr/local/bin/nats-server", "/usr/bin/docker-entrypoint.sh"
    return [
        image("nats", {nats: Path(sys.executable).with_name("nats-server")}, (nats,)),
        image(
            "minio",
            {"/usr/bin/minio": minio, entrypoint: ENTRYPOINT},
            (entrypoint,),
        ),
        *(image(name, {}, idle) for name in IDLE),
    ]
