"""Helm by its command line: Helm 4, and Helm 3 with its names for the same options.

Measured on 4.3.1: no `--wait` means hooks only, a bare `--wait` is the kstatus watcher, `--atomic` is called
`--rollback-on-failure`. Helm answers SIGTERM by marking the release failed, which `Command` relies on.

Each call gets server and identity as a kubeconfig of its own, the namespace as an argument and the record store by
`environ`, in an empty directory: helm 3 takes a directory `minio` beside it for the chart `minio`.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.command import Command, Completed
from cluster.helm.charts import Charts
from cluster.helm.releases import Release
from cluster.manifests import Manifest, faults_of, parse_manifests
from cluster.target import Target
from config.process_environment import child_environ
from config.text.documents import dump
from errors import PermanentError, TemporaryError

INSTALL_HINT = "Install Helm 4: https://helm.sh/docs/intro/install/ (`make demo` brings its own)."
# Beyond helm's own --timeout: a rollback after it may take as long again.
MARGIN_SECONDS = 60
# client-go's words for HTTP 401 (apimachinery/pkg/api/errors: `NewGenericServerResponse`)
UNAUTHENTICATED = "the server has asked for the client to provide credentials"
# Helm's variables that a shell may set: a registry's login, and a writable place for what helm downloads.
FROM_SHELL = ("HELM_REGISTRY_CONFIG", "HELM_CACHE_HOME")
# https://helm.sh/docs/helm/helm/: records are Secrets, which is where `cluster.helm.records` reads them; no plugins (of
# downloads and post-renderers), and no repositories but those of helmfile.yaml
FIXED = {
    "HELM_DRIVER": "secret",
    "HELM_NO_PLUGINS": "1",
    "HELM_PLUGINS": os.devnull,
    "HELM_REPOSITORY_CONFIG": os.devnull,
}
TEMPORARY = re.compile(
    r"connection refused|connection reset|i/o timeout|TLS handshake timeout|no such host|EOF"
    r"|etcdserver|the server is currently unable|too many requests|unexpected error when reading response body"
    r"|Kubernetes cluster unreachable|http2: client connection lost|was refused - did you specify"
    r"|because it is being terminated"
    r"|another operation \(install/upgrade/rollback\) is in progress|the object has been modified",
    re.IGNORECASE,
)


def helm_environ(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of helm's processes, without variables that change cluster, namespace or record store."""
    kept = {name: environ[name] for name in FROM_SHELL if name in environ}
    return {**child_environ(environ), **kept, **FIXED}


class Helm:
    """Helm against one cluster.

    Args:
        command: the helm program, with `helm_environ`.
        target: the cluster.
        charts: directory of the chart archives.
    """

    def __init__(self, command: Command, target: Target, charts: Path) -> None:
        self._command = command
        self._target = target
        self._major: int | None = None
        self.charts = Charts(
            charts,
            lambda words, seconds, work: command.run(
                "pull", *words, timeout=seconds, directory=work
            ),
        )

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
            site: last values, which take precedence.
            kube_version: of the target, `v1.36.3`: charts choose API versions by it.
            api_versions: served by the target: charts omit objects of other versions (EMQX its budget).

        Returns:
            The manifests, hooks left out, each namespaced one with its namespace.

        Raises:
            PermanentError: the chart cannot be fetched, refuses the values, or renders an invalid object.
        """
        with self._directory() as work:
            chart = str(self.charts.locate(release, work))
            done = self._command.run(
                "template", release.name, chart, "--namespace", release.namespace,
                "--no-hooks", "--skip-tests", "--kube-version", kube_version,
                *(part for version in api_versions for part in ("--api-versions", version)),
                *_values(release, site, work), timeout=120, directory=work,
            )  # fmt: skip
        what = f"rendering release {release.name} from chart {release.chart} {release.version}"
        self._check(done, what)
        manifests = parse_manifests(done.stdout)
        faults = [fault for manifest in manifests for fault in faults_of(manifest)]
        if faults:
            raise PermanentError(f"{what}: the API server would refuse {'; '.join(faults)}")
        return manifests

    def upgrade(self, release: Release, site: Mapping[str, Any], *, rollback: bool) -> Completed:
        """Install or upgrade a release, and wait for it if that is declared.

        Args:
            release: what helmfile.yaml declares.
            site: last values, which take precedence.
            rollback: undo a failed change (an install is removed again; its volumes stay).

        Raises:
            TemporaryError: the API server did not answer.
            PermanentError: helm's message why it failed.
        """
        flags: list[str] = []
        if self.major >= 4:
            # what is declared wins over what kubectl edit left; Helm 3 merges and never asks
            flags += ["--server-side=true", "--force-conflicts"]
        if release.wait:
            flags.append("--wait=watcher" if self.major >= 4 else "--wait")
            if rollback:
                flags.append("--rollback-on-failure" if self.major >= 4 else "--atomic")
        with self._directory() as work:
            chart = str(self.charts.locate(release, work))
            done = self._command.run(
                "upgrade", "--install", release.name, chart,
                "--namespace", release.namespace, "--history-max", str(release.history),
                "--timeout", f"{release.timeout}s", *flags, *_values(release, site, work),
                *self._connection(work), timeout=release.timeout * 2 + MARGIN_SECONDS, directory=work,
            )  # fmt: skip
        self._check(done, f"helm upgrade --install {release.name}")
        return done

    def rollback(self, name: str, namespace: str, revision: int, *, timeout: int) -> None:
        """Roll back to an earlier revision; this also fixes a stuck `pending-*` release.

        Args:
            name: release.
            namespace: where it is.
            revision: number to go back to.
            timeout: seconds for helm.
        """
        with self._directory() as work:
            done = self._command.run(
                "rollback", name, str(revision), "--namespace", namespace,
                "--history-max", "0", "--timeout", f"{timeout}s",  # the next upgrade prunes
                *self._connection(work), timeout=timeout + MARGIN_SECONDS, directory=work,
            )  # fmt: skip
        self._check(done, f"helm rollback {name} {revision}")

    def uninstall(self, name: str, namespace: str, *, timeout: int) -> None:
        """Remove a release; claims made by StatefulSets, and so the data, stay.

        Args:
            name: release.
            namespace: where it is.
            timeout: seconds for helm.
        """
        with self._directory() as work:
            done = self._command.run(
                "uninstall", name, "--namespace", namespace, "--ignore-not-found",
                "--timeout", f"{timeout}s", *self._connection(work),
                timeout=timeout + MARGIN_SECONDS, directory=work,
            )  # fmt: skip
        self._check(done, f"helm uninstall {name}")

    # ------------------------------------------------------------------ internals
    @contextmanager
    def _directory(self) -> Iterator[Path]:
        """A directory for one call, readable only by its owner, because a kubeconfig may hold a token."""
        work = Path(tempfile.mkdtemp(prefix="isa-helm-"))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _connection(self, work: Path) -> tuple[str, ...]:
        file = work / "kubeconfig"
        file.write_text(dump(self._target.kubeconfig), encoding="utf-8")
        return ("--kubeconfig", str(file))

    def _check(self, done: Completed, what: str) -> None:
        if done.returncode == 0:
            return
        message = f"{what} failed (exit {done.returncode}): {done.error}"
        if UNAUTHENTICATED in done.error:
            message += ". The token or certificate has expired or was revoked: log in again, or renew the kubeconfig"
        if done.returncode < 0 or TEMPORARY.search(done.error):
            raise TemporaryError(message)
        raise PermanentError(message)


def _values(release: Release, site: Mapping[str, Any], work: Path) -> list[str]:
    """Arguments for the values, the site's last; inline ones go into files of the call."""
    files: list[str] = []
    for index, entry in enumerate([*release.values, site]):
        if isinstance(entry, Path):
            path = entry
        else:
            path = work / f"values-{index}.yaml"
            path.write_text(dump(dict(entry)), encoding="utf-8")
        files += ["--values", str(path)]
    return files


def with_marks(manifest: Manifest, release: Release) -> Manifest:
    """The manifest as helm applies it, with the labels and annotations that say whose it is.

    https://github.com/helm/helm/blob/main/pkg/action/validate.go
    """
    metadata = manifest["metadata"]
    annotations = {
        "meta.helm.sh/release-name": release.name,
        "meta.helm.sh/release-namespace": release.namespace,
    }
    labels = {**metadata.get("labels", {}), "app.kubernetes.io/managed-by": "Helm"}
    marked = {"labels": labels, "annotations": {**metadata.get("annotations", {}), **annotations}}
    return {**manifest, "metadata": {**metadata, **marked}}
