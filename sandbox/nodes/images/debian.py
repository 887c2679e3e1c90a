"""Programs of Debian's packages without installing them: downloaded by apt, unpacked into the cache.

A node sees them in its own /usr (`capsule.sh`), so that libraries and extensions are found where they belong. The
machine's /usr stays as it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from errors import ConfigurationError, Fault, PermanentError
from sandbox.machine.paths import cache_dir, locked

# What kube-proxy and kube-router call, runc, and a static busybox for the images.
NODE_PACKAGES = (
    "runc",
    "iptables",
    "nftables",
    "ipset",
    "conntrack",
    "busybox-static",
    "libnftnl11",
    "libxtables12",
    "libip4tc2",
    "libip6tc2",
    "libnftables1",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
    "libipset13",
    "libmnl0",
    "libseccomp2",
)
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
# The package leaves these names to update-alternatives, which only an installation runs.
IPTABLES = tuple(
    f"{name}{end}" for name in ("iptables", "ip6tables") for end in ("", "-save", "-restore")
)


def node_programs() -> Path:
    """Directory whose `usr` holds the programs of `NODE_PACKAGES`, unpacked once.

    Raises:
        ConfigurationError: this machine has no apt.
        PermanentError: a package could not be downloaded or unpacked.
    """
    return _unpacked("nodes-1", NODE_PACKAGES)


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
        problem = "has no apt-get, which brings runc and nft for real nodes"
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
        if (fresh / "usr/sbin/xtables-nft-multi").exists():
            for name in IPTABLES:
                (fresh / "usr/sbin" / name).symlink_to("xtables-nft-multi")
        os.rename(fresh, target)


def _run(argv: list[str], directory: Path) -> None:
    done = subprocess.run(argv, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PermanentError(f"{' '.join(argv[:2])} failed: {done.stderr.strip()[-500:]}")
