"""Builds the images of PostgreSQL and of Pgpool from Debian's packages, without a registry.

Both are one file system with different entry points. Debian 13 has production's versions but for patches: PostgreSQL
17, repmgr 5.5, Pgpool 4.6. Paths and variables are those of Bitnami's images, so production's values apply as they are.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from errors import PermanentError
from sandbox.machine.paths import cache_dir, locked
from sandbox.nodes.images import debian, oci

PACKAGES = ("postgresql-17", "postgresql-17-pgaudit", "postgresql-17-repmgr", "pgpool2")
POSTGRESQL, PGPOOL = "sandbox.local/postgresql-repmgr:17.6.0", "sandbox.local/pgpool:4.6.3"
SYSTEM = Path(__file__).with_name("system.sh")
SCRIPTS = Path(__file__).with_name("scripts")
INSTALLED = "/opt/bitnami/scripts"
PATH = "/usr/lib/postgresql/17/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USER = "1001:1001"
# A Service of one command line needs these to exist before anything is mounted on them.
MOUNT_POINTS = {"/bitnami/postgresql": 0o775, "/docker-entrypoint-initdb.d": 0o755}


def archives() -> list[Path]:
    """Write both images; what has not changed is taken from the cache.

    Raises:
        ConfigurationError: this machine has no apt.
        PermanentError: the packages could not be installed.
    """
    base = _system()
    written = []
    for name, script in ((POSTGRESQL, "postgresql-repmgr/run.sh"), (PGPOOL, "pgpool/run.sh")):
        image = oci.Image(
            name,
            {f"{INSTALLED}/{one.relative_to(SCRIPTS)}": one for one in _scripts()},
            (f"{INSTALLED}/{script}",),
            MOUNT_POINTS,
            {"PATH": PATH},
            USER,
            base,
        )
        target = cache_dir() / "images" / f"{name.rpartition('/')[2].replace(':', '-')}.tar"
        oci.write(image, target)
        written.append(target)
    return written


def _scripts() -> list[Path]:
    return sorted(one for one in SCRIPTS.rglob("*") if one.is_file())


def _system() -> Path:
    """Archive of a Debian with the packages, made once for each list of packages and way to make it."""
    recipe = " ".join(PACKAGES).encode() + SYSTEM.read_bytes()
    target = cache_dir() / "images" / f"postgresql-{hashlib.sha256(recipe).hexdigest()[:12]}.base"
    with locked(target.with_name("postgresql.lock")):
        if not target.exists():
            _install(target)
    return target


def _install(target: Path) -> None:
    fresh = target.with_name(f"new-{target.stem}.tar")
    argv = ["bash", str(SYSTEM), str(debian.builder_programs()), str(fresh), ",".join(PACKAGES)]
    unshared = ["unshare", "--mount", "--propagation", "private", *argv]
    done = subprocess.run(unshared, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip()[-2000:]
        raise PermanentError(f"images of PostgreSQL: {', '.join(PACKAGES)} not installed: {words}")
    fresh.replace(target)
