"""Programs of Debian's packages without installing them: downloaded by apt, unpacked into the cache.

What runs them sees them in /usr of a mount namespace of its own (`build.sh`), so that libraries are found where they
belong. The machine's /usr stays as it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from errors import ConfigurationError, Fault, PermanentError
from sandbox.paths import cache_dir, locked

# What builds an image from a Containerfile, and its base from packages.
BUILDER_PACKAGES = (
    "buildah",
    "mmdebstrap",
    "uidmap",
    "golang-github-containers-common",
    "golang-github-containers-image",
    "libdevmapper1.02.1",
    "libgpgme11",
    "libassuan0",
    "libseccomp2",
    "libsubid4",
)


def builder_programs() -> Path:
    """Directory whose `usr` holds buildah and mmdebstrap, which build images from Containerfiles.

    Raises:
        ConfigurationError: this machine has no apt.
        PermanentError: a package could not be downloaded or unpacked.
    """
    return _unpacked("builder-1", BUILDER_PACKAGES)


def _unpacked(name: str, packages: Iterable[str]) -> Path:
    target = cache_dir() / f"debian-{name}"
    with locked(target.with_name(f"{target.name}.lock")):
        if not target.exists():
            _unpack(packages, target)
    return target


def _unpack(packages: Iterable[str], target: Path) -> None:
    if not shutil.which("apt-get"):
        problem = "has no apt-get, which brings buildah"
        raise ConfigurationError([Fault("this machine", problem, "use Debian or Ubuntu")])
    with tempfile.TemporaryDirectory(prefix="debian-", dir=cache_dir()) as directory:
        work = Path(directory)
        fresh = work / "root"
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False)
        _run(["apt-get", "download", *packages], work)
        for file in sorted(work.glob("*.deb")):
            _run(["dpkg", "-x", file.name, str(fresh)], work)
        # a root of merged /usr: older packages still bring /bin, /sbin and /lib
        for name in ("bin", "sbin", "lib"):
            if (fresh / name).is_dir():
                shutil.copytree(
                    fresh / name, fresh / "usr" / name, symlinks=True, dirs_exist_ok=True
                )
                shutil.rmtree(fresh / name)
        os.rename(fresh, target)


def _run(argv: list[str], directory: Path) -> None:
    done = subprocess.run(argv, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PermanentError(f"{' '.join(argv[:2])} failed: {done.stderr.strip()[-500:]}")
