"""Checks what the machine lacks before anything starts. Names everything with the command that installs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable

from errors import ConfigurationError, Fault
from sandbox.machine import neo4j_programs, postgres
from sandbox.machine.binaries import CLUSTER_TOOLS, TOOLS, find_go, ready

JAVA_PACKAGE = "openjdk-17-jre-headless"
# Program → its Debian package.
PROGRAMS = {
    "openssl": "openssl",
    "unshare": "util-linux",
    "zstd": "zstd",
    "curl": "curl",
    "jq": "jq",
}


def missing(programs: Iterable[str] = PROGRAMS) -> list[str]:
    """Programs that are not on the PATH."""
    return [program for program in programs if shutil.which(program) is None]


def check(*, install: bool) -> None:
    """Check that the machine has everything.

    Args:
        install: on Debian as root, install missing packages.

    Raises:
        ConfigurationError: something is missing; lists everything that is missing.
    """
    lacking = missing()
    packages = sorted({PROGRAMS[program] for program in lacking})
    if not _java():
        packages.append(JAVA_PACKAGE)
    if packages and install and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing {' '.join(packages)}", file=sys.stderr)
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        subprocess.run(["apt-get", "install", "-y", "-qq", *packages], check=False)
        lacking = missing()
    faults = [
        Fault("this machine", f"has no {program}", f"apt-get install {PROGRAMS[program]}")
        for program in lacking
    ]
    if "unshare" not in lacking and not _may_run_postgres():
        hint = "run as an ordinary user, or allow user namespaces (a container needs CAP_SYS_ADMIN)"
        faults.append(
            Fault("this machine", "lets root make no user namespace for PostgreSQL", hint)
        )
    try:
        neo4j_programs.java()
    except ConfigurationError as exc:
        faults += exc.faults
    if any(ready(TOOLS[name]) is None for name in CLUSTER_TOOLS):
        try:
            find_go()
        except ConfigurationError as exc:
            faults += exc.faults
    if faults:
        raise ConfigurationError(faults)


def _java() -> bool:
    try:
        neo4j_programs.java()
    except ConfigurationError:
        return False
    return True


def _may_run_postgres() -> bool:
    done = subprocess.run(postgres.unprivileged("true"), capture_output=True, check=False)
    return done.returncode == 0


if __name__ == "__main__":
    try:
        check(install=True)
    except ConfigurationError as exc:
        sys.exit(f"Something is missing on this machine:\n{exc}")
