"""Helm by its command line: Helm 4, and Helm 3 under the names that it has for the same things.

Measured on 4.3.1: no `--wait` means hooks only, a bare `--wait` is the kstatus watcher, `--atomic` is called
`--rollback-on-failure`. Helm answers SIGTERM by marking the release failed, which `Command` relies on.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from cluster.command import Command, Completed
from cluster.manifests import Manifest, faults_of, parse_manifests
from cluster.releases import Release
from errors import PermanentError, TemporaryError

INSTALL_HINT = "Install Helm 4: https://helm.sh/docs/intro/install/ (`make demo` brings its own)."
# Beyond helm's own --timeout: a rollback after it may take as long again.
MARGIN_SECONDS = 60
HISTORY_MAX = 10
TEMPORARY = re.compile(
    r"connection refused|connection reset|i/o timeout|TLS handshake timeout|no such host|EOF"
    r"|etcdserver|the server is currently unable|too many requests|unexpected error when reading response body"
    r"|Kubernetes cluster unreachable|http2: client connection lost|was refused - did you specify"
    r"|another operation \(install/upgrade/rollback\) is in progress|the object has been modified",
    re.IGNORECASE,
)


class Helm:
    """Helm against one cluster.

    Args:
        command: the helm program.
        kubeconfig: file for `--kubeconfig`, helm's default if None.
        context: kubeconfig context, the current one if None.
    """

    def __init__(
        self, command: Command, *, kubeconfig: Path | None = None, context: str | None = None
    ) -> None:
        self._command = command
        self._connection: list[str] = []
        if kubeconfig:
            self._connection += ["--kubeconfig", str(kubeconfig)]
        if context:
            self._connection += ["--kube-context", context]
        self._major: int | None = None

    @property
    def major(self) -> int:
        """Major version of the helm in use, asked once.

        Raises:
            PermanentError: it is neither 3 nor 4.
        """
        if self._major is None:
            answer = self._command.run("version", "--template", "{{.Version}}", timeout=30)
            match = re.match(r"v?(\d+)\.", answer.stdout.strip())
            if not match or int(match[1]) not in (3, 4):
                raise PermanentError(
                    f"helm {answer.stdout.strip() or answer.error} is not supported. {INSTALL_HINT}"
                )
            self._major = int(match[1])
        return self._major

    def template(
        self,
        release: Release,
        site: Mapping[str, Any],
        *,
        kube_version: str,
        api_versions: Sequence[str],
    ) -> list[Manifest]:
        """Render a release as an install would, without touching the cluster.

        Args:
            release: what helmfile.yaml declares.
            site: last values, which win.
            kube_version: of the target, `v1.36.3`: charts choose API versions by it.
            api_versions: what the target serves: charts leave out what it does not (EMQX its budget).

        Returns:
            The manifests, hooks left out, each namespaced one with its namespace.

        Raises:
            PermanentError: the chart cannot be fetched, refuses the values, or renders what is no object.
        """
        with self._values(release, site) as files:
            done = self._command.run(
                "template", release.name, *self._chart(release), "--namespace", release.namespace,
                "--no-hooks", "--skip-tests", "--kube-version", kube_version,
                *(part for version in api_versions for part in ("--api-versions", version)),
                *files, timeout=120,
            )  # fmt: skip
        what = f"rendering release {release.name} from chart {release.chart} {release.version}"
        self._check(done, what)
        manifests = parse_manifests(done.stdout)
        faults = [fault for manifest in manifests for fault in faults_of(manifest)]
        if faults:
            raise PermanentError(f"{what}: the API server would refuse {'; '.join(faults)}")
        return manifests

    def upgrade(self, release: Release, site: Mapping[str, Any], *, rollback: bool) -> Completed:
        """Install or upgrade a release, and wait for it where it is declared so.

        Args:
            release: what helmfile.yaml declares.
            site: last values, which win.
            rollback: undo a failed change (an install is removed again; its volumes stay).

        Raises:
            TemporaryError: the API server was away.
            PermanentError: helm's own words why it failed.
        """
        flags: list[str] = []
        if self.major >= 4:
            # what is declared wins over what kubectl edit left; Helm 3 merges and never asks
            flags += ["--server-side=true", "--force-conflicts"]
        if release.wait:
            flags.append("--wait=watcher" if self.major >= 4 else "--wait")
            if rollback:
                flags.append("--rollback-on-failure" if self.major >= 4 else "--atomic")
        with self._values(release, site) as files:
            done = self._command.run(
                "upgrade", "--install", release.name, *self._chart(release),
                "--namespace", release.namespace, "--history-max", str(HISTORY_MAX),
                "--timeout", f"{release.timeout}s", *flags, *files, *self._connection,
                timeout=release.timeout * 2 + MARGIN_SECONDS,
            )  # fmt: skip
        self._check(done, f"helm upgrade --install {release.name}")
        return done

    def rollback(self, name: str, namespace: str, revision: int, *, timeout: int) -> None:
        """Make an earlier revision the current one; also the cure of a stuck `pending-*` release.

        Args:
            name: release.
            namespace: where it is.
            revision: number to go back to.
            timeout: seconds for helm.
        """
        done = self._command.run(
            "rollback", name, str(revision), "--namespace", namespace, "--history-max", str(HISTORY_MAX),
            "--timeout", f"{timeout}s", *self._connection, timeout=timeout + MARGIN_SECONDS,
        )  # fmt: skip
        self._check(done, f"helm rollback {name} {revision}")

    def uninstall(self, name: str, namespace: str, *, timeout: int) -> None:
        """Remove a release; claims made by StatefulSets, and so the data, stay.

        Args:
            name: release.
            namespace: where it is.
            timeout: seconds for helm.
        """
        done = self._command.run(
            "uninstall", name, "--namespace", namespace, "--ignore-not-found",
            "--timeout", f"{timeout}s", *self._connection, timeout=timeout + MARGIN_SECONDS,
        )  # fmt: skip
        self._check(done, f"helm uninstall {name}")

    # ------------------------------------------------------------------ internals
    def _chart(self, release: Release) -> list[str]:
        chart = [release.chart]
        if release.version:
            chart += ["--version", release.version]
        if release.repository:
            chart += ["--repo", release.repository]
        return chart

    @contextmanager
    def _values(self, release: Release, site: Mapping[str, Any]) -> Iterator[list[str]]:
        with tempfile.TemporaryDirectory(prefix="isa-values-") as directory:
            files: list[str] = []
            for index, entry in enumerate([*release.values, site]):
                path = entry
                if not isinstance(path, Path):
                    path = Path(directory, f"{index}.yaml")
                    path.write_text(
                        yaml.safe_dump(dict(entry) if isinstance(entry, Mapping) else entry)
                    )
                files += ["--values", str(path)]
            yield files

    def _check(self, done: Completed, what: str) -> None:
        if done.returncode == 0:
            return
        message = f"{what} failed (exit {done.returncode}): {done.error}"
        if done.returncode < 0 or TEMPORARY.search(done.error):
            raise TemporaryError(message)
        raise PermanentError(message)
