"""One store of images for all nodes: imported once by a containerd of its own, then linked into each node.

What containerd keeps by digest (blobs, unpacked layers) never changes, so nodes share it by hard links. Its databases
are written to, so each node has a copy. Eight nodes then take the time and space of one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from errors import PermanentError
from sandbox.machine.paths import cache_dir, locked
from sandbox.nodes import settings
from sandbox.nodes.images import oci

# Of containerd's plugins, each in its own directory: images, snapshots, mounts.
DATABASES = "*/*.db"
# Arguments: ctr, containerd, its settings, its socket; then the archives. The mounts end with the script.
IMPORT = """
set -eu
ctr=$1 containerd=$2 settings=$3 socket=$4
shift 4
"$containerd" --config "$settings" > "$settings.log" 2>&1 &
trap 'kill $! && wait $! || true' EXIT
until "$ctr" -a "$socket" version > /dev/null 2>&1; do
    kill -0 $! || { tail -n 5 "$settings.log" >&2; exit 1; }
    sleep 0.05
done
for archive in "$@"; do
    "$ctr" -a "$socket" -n k8s.io images import "$archive" > /dev/null
done
"""


def ensure(archives: Sequence[Path], binaries: dict[str, Path]) -> Path:
    """The store with these images, made unless it is cached; others are removed from the cache.

    Args:
        archives: of the images.
        binaries: path of each built program.

    Raises:
        PermanentError: containerd does not start, or refuses an image.
    """
    stores = cache_dir() / "image-stores"
    store = stores / name_of(archives, binaries["containerd"])
    with locked(stores.with_name("image-stores.lock")):
        if not store.exists():
            stores.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="new-", dir=stores) as directory:
                _fill(Path(directory), archives, binaries)
                os.rename(Path(directory) / "containerd", store)
            for old in stores.iterdir():  # nodes that use it keep their links
                if old != store:
                    shutil.rmtree(old)
    return store


def name_of(archives: Sequence[Path], containerd: Path) -> str:
    """Name of a store: a digest of the images' own digests and of the containerd that imports them."""
    words = [str(containerd), *sorted(oci.digest_of(archive) for archive in archives)]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def link(store: Path, target: Path) -> None:
    """Give a node the images of a store.

    Args:
        store: with all images.
        target: containerd's directory on the node; it must not exist.

    Raises:
        PermanentError: a file cannot be linked or copied.
    """
    fresh = target.with_name(f"{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.parent.mkdir(parents=True, exist_ok=True)
    # links do not lead to other file systems; cp keeps owners, modes and attributes of directories
    alike = store.stat().st_dev == fresh.parent.stat().st_dev
    argv = ["cp", "--archive", "--link" if alike else "--reflink=auto", str(store), str(fresh)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PermanentError(f"images of {store} are not linked: {done.stderr.strip()[-500:]}")
    for database in [*fresh.glob(DATABASES)]:
        copy = database.with_suffix(".copy")
        shutil.copyfile(database, copy)
        os.replace(copy, database)
    os.rename(fresh, target)


def _fill(directory: Path, archives: Sequence[Path], binaries: dict[str, Path]) -> None:
    configuration = directory / "containerd.toml"
    socket = directory / "containerd.sock"
    text = settings.containerd(directory, [], directory / "state", socket)
    configuration.write_text(text, encoding="utf-8")
    argv = ["unshare", "--mount", "--propagation", "private", "bash", "-c", IMPORT, "import"]
    argv += [str(binaries["ctr"]), str(binaries["containerd"]), str(configuration), str(socket)]
    done = subprocess.run([*argv, *map(str, archives)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PermanentError(f"images are not imported: {done.stderr.strip()[-1000:]}")
