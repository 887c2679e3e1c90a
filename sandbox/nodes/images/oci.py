"""Writes container images as archives in OCI's layout, for `ctr images import`: no registry, no builder.

The same files give the same bytes: no times, no owners. Formats:
https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md and .../config.md
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What containerd names an imported image by: https://github.com/containerd/containerd/blob/v2.4.2/pkg/images/annotations.go
NAME_ANNOTATION = "io.containerd.image.name"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
INPUTS_DIGITS = 12


@dataclass(frozen=True)
class Image:
    """An image: its files, in a layer above those of a whole system where it needs one.

    Attributes:
        name: with its tag, `sandbox.local/busybox:1`.
        files: path in the image → file of this machine, or a link's target as text.
        directories: empty ones, each with its mode.
        command: entry point.
        environ: variables.
        user: `UID:GID` of its processes.
        base: archive of a whole file system, which is the layer below.
    """

    name: str
    files: Mapping[str, Path | str]
    command: tuple[str, ...]
    directories: Mapping[str, int] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=lambda: {"PATH": "/usr/bin:/bin"})
    user: str = "0:0"
    base: Path | None = None


def archive(image: Image, directory: Path) -> Path:
    """The archive of an image: the one that was written of the same files, or a new one in its place.

    Args:
        image: to write.
        directory: of all archives.
    """
    stem = image.name.rpartition("/")[2].replace(":", "-")
    target = directory / f"{stem}-{_inputs(image)}.tar"
    if not target.exists():
        write(image, target)
        for old in directory.glob(f"{stem}-{'[0-9a-f]' * INPUTS_DIGITS}.tar"):
            if old != target:
                old.unlink()
    return target


def digest_of(archive: Path) -> str:
    """Digest of the image in an archive that `write` wrote."""
    with tarfile.open(archive) as tar:
        index = tar.extractfile("index.json")
        assert index is not None
        (entry,) = json.load(index)["manifests"]
    return f"{entry['annotations'][NAME_ANNOTATION]}@{entry['digest']}"


def _inputs(image: Image) -> str:
    """Digest of all that an image is made of; files count by size and time, since programs are large."""
    words = [repr(image)]
    for source in image.files.values():
        if isinstance(source, Path):
            found = source.stat()
            words.append(f"{found.st_size} {found.st_mtime_ns} {found.st_mode}")
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:INPUTS_DIGITS]


def write(image: Image, target: Path) -> str:
    """Write the image's archive.

    Args:
        image: to write.
        target: file; replaced as a whole.

    Returns:
        The image's digest.
    """
    blobs: dict[str, bytes | Path] = {}

    def blob(data: bytes | Path, media_type: str) -> dict[str, Any]:
        digest, size = _digest(data)
        blobs[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}

    layers = [blob(image.base, LAYER)] if image.base else []
    layers.append(blob(_layer(image), LAYER))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": list(image.command),
            "Env": [f"{name}={value}" for name, value in sorted(image.environ.items())],
            "User": image.user,
        },
        "rootfs": {"type": "layers", "diff_ids": [one["digest"] for one in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blob(_json(config), CONFIG),
        "layers": layers,
    }
    entry = blob(_json(manifest), MANIFEST) | {"annotations": {NAME_ANNOTATION: image.name}}
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}")
    with tarfile.open(fresh, "w") as archive:
        _add(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(archive, "index.json", _json({"schemaVersion": 2, "manifests": [entry]}))
        for digest, data in sorted(blobs.items()):
            _add(archive, f"blobs/sha256/{digest}", data)
    fresh.replace(target)
    return str(entry["digest"])


def _layer(image: Image) -> bytes:
    packed = io.BytesIO()
    parents = {
        str(parent) for path in [*image.files, *image.directories] for parent in Path(path).parents
    }
    modes = dict.fromkeys(parents - {"/", "."}, 0o755) | dict(image.directories)
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, mode in sorted(modes.items()):
            info = tarfile.TarInfo(path.lstrip("/"))
            info.type, info.mode = tarfile.DIRTYPE, mode
            archive.addfile(info)
        for path, source in sorted(image.files.items()):
            info = tarfile.TarInfo(path.lstrip("/"))
            if isinstance(source, str):
                info.type, info.linkname = tarfile.SYMTYPE, source
                archive.addfile(info)
            else:
                data = source.read_bytes()
                info.size, info.mode = len(data), 0o755 if source.stat().st_mode & 0o100 else 0o644
                archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def _digest(data: bytes | Path) -> tuple[str, int]:
    """SHA-256 and size of bytes or of a file."""
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest(), len(data)
    with data.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), data.stat().st_size


def _add(archive: tarfile.TarFile, name: str, data: bytes | Path) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data) if isinstance(data, bytes) else data.stat().st_size
    with io.BytesIO(data) if isinstance(data, bytes) else data.open("rb") as file:
        archive.addfile(info, file)


def _json(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
