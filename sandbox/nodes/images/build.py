"""Builds the worker image from its Containerfile without an image registry, and runs programs in it.

The bases are made of Debian's packages (mmdebstrap) and of this machine's Go, and stand under the names that the
Containerfile asks for. So the Containerfile is built as it is; what differs from a build with the registry's bases is
Debian's choice of packages in a minimal root. `build.sh` has the steps.
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from errors import ConfigurationError, Fault, PermanentError
from sandbox.machine.binaries import find_go
from sandbox.machine.paths import cache_dir, locked
from sandbox.nodes.images import debian

SCRIPT = Path(__file__).with_name("build.sh")


@dataclass(frozen=True)
class WorkerImage:
    """The worker image in buildah's store.

    Attributes:
        project: root of the project.
        state: the store and the bases; kept, so that a second build takes what has not changed from it.
    """

    project: Path
    state: Path = cache_dir() / "worker-image"

    def build(self) -> str:
        """Build it, bases included; returns the log.

        Raises:
            ConfigurationError: we are not root, or this machine has no apt or no Go.
            PermanentError: a step failed; with the end of its log.
        """
        if os.geteuid() != 0:
            problem = "may mount nothing, and an image is built in mounts: it needs root"
            raise ConfigurationError([Fault("this user", problem, "run as root")])
        with locked(self.state.with_name("worker-image.lock")):
            self.state.mkdir(parents=True, exist_ok=True)
            return self._do("bases") + self._do("build")

    def export(self, target: Path, name: str) -> None:
        """Write it as an archive that nodes take (`Nodes.load`).

        Args:
            target: file; replaced as a whole.
            name: that the nodes know it by, with its tag.

        Raises:
            PermanentError: there is none; build it first.
        """
        with locked(self.state.with_name("worker-image.lock")):
            fresh = target.with_name(f".{target.name}")
            fresh.unlink(missing_ok=True)  # buildah adds to one that exists
            self._do("export", str(fresh), name)
            fresh.replace(target)

    def run(self, script: str, **variables: str) -> str:
        """Run a shell script in it as worker.yaml runs its worker; returns what it printed.

        Raises:
            PermanentError: it failed.
        """
        with locked(self.state.with_name("worker-image.lock")):
            return self._do("run", f"SCRIPT={script}", *(f"{k}={v}" for k, v in variables.items()))

    def forget(self) -> None:
        """Remove store and bases."""
        shutil.rmtree(self.state, ignore_errors=True)

    def _do(self, action: str, *words: str) -> str:
        bundle = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
        argv = [
            "unshare", "--mount", "--propagation", "private", "bash", str(SCRIPT), action, str(self.state),
            str(debian.builder_programs()), bundle, str(self.project), *words,
        ]  # fmt: skip
        path = os.pathsep.join([str(find_go().parent), os.environ.get("PATH", "")])
        environ = {**os.environ, "PATH": path}
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environ)
        if done.returncode != 0:
            words_of_it = (done.stdout + done.stderr).strip()[-2000:]
            raise PermanentError(f"worker image: {action} failed: {words_of_it}")
        return done.stdout
