"""Chart archives: stored in a directory, compared with the lock file, pulled from their host only if missing.

A deploy after a disaster must not depend on six chart hosts on the internet. An archive of a version is always the
same file, so its SHA-256 in `charts.lock` shows whether a pulled or stored archive is that file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from cluster.command import Cancelled, Completed
from cluster.helm.releases import Release
from errors import IsaError, PermanentError

log = logging.getLogger(__name__)

PULL_SECONDS = 60.0  # archives have some 100 KiB


class ChartUnavailable(PermanentError):
    """The chart is not stored and cannot be pulled."""


def kept_archive(directory: Path, release: Release) -> Path | None:
    """Path of the archive of a release's chart."""
    file = directory / f"{release.locked_as}.tgz"
    return file if release.version and file.is_file() else None


class Charts:
    """The charts of an environment.

    Args:
        directory: of the archives, `NAME-VERSION.tgz`.
        pull: runs `helm pull` with further arguments and a limit in seconds, in a directory.
    """

    def __init__(
        self, directory: Path, pull: Callable[[tuple[str, ...], float, Path], Completed]
    ) -> None:
        self._directory = directory
        self._pull = pull

    def locate(self, release: Release, work: Path) -> Path:
        """Return the chart of a release: its directory, or its archive, pulled if it is not stored.

        Args:
            release: what helmfile.yaml declares.
            work: existing directory of the caller, for an archive that cannot be stored.

        Raises:
            ChartUnavailable: it is not stored, and its host does not deliver it.
            PermanentError: the archive is not the locked one.
        """
        if not release.version:
            return Path(release.chart)
        stored = kept_archive(self._directory, release)
        if stored is not None:
            _compare(release, stored)
            return stored
        pulled = self._pulled(release, work)
        _compare(release, pulled)
        return self._keep(pulled)

    def digest(self, release: Release, work: Path) -> str:
        """`sha256:…` of the archive of a release's chart, pulled if it is not stored."""
        return _digest(self.locate(release, work))

    def _pulled(self, release: Release, work: Path) -> Path:
        directory = Path(tempfile.mkdtemp(prefix="chart-", dir=work))
        arguments = [release.chart, "--version", release.version, "--destination", str(directory)]
        if release.repository:
            arguments += ["--repo", release.repository]
        try:
            result = self._pull(tuple(arguments), PULL_SECONDS, work)
        except Cancelled:
            raise
        except IsaError as exc:
            raise self._unavailable(release, str(exc)) from exc
        archives = list(directory.glob("*.tgz"))
        if result.returncode != 0 or len(archives) != 1:
            raise self._unavailable(release, result.error)
        target = directory / f"{release.locked_as}.tgz"
        return archives[0].rename(target)

    def _unavailable(self, release: Release, why: str) -> ChartUnavailable:
        source = release.repository or release.chart
        return ChartUnavailable(
            f"chart {release.locked_as} of release {release.name} cannot be pulled from {source}: {why}. Put its "
            f"archive into {self._directory} (charts.directory), or name a mirror in charts.mirrors"
        )

    def _keep(self, pulled: Path) -> Path:
        """Copy an archive into the directory atomically; if that fails, the caller's copy is used."""
        target = self._directory / pulled.name
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            handle, fresh = tempfile.mkstemp(dir=self._directory, prefix=f".{pulled.name}.")
            with os.fdopen(handle, "wb") as file:
                file.write(pulled.read_bytes())
            os.chmod(fresh, 0o644)
            os.replace(fresh, target)
        except OSError as exc:
            log.warning("%s cannot be stored in %s: %s", pulled.name, self._directory, exc.strerror)
            return pulled
        return target


def _digest(file: Path) -> str:
    return f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


def _compare(release: Release, file: Path) -> None:
    digest = _digest(file)
    if release.digest and digest != release.digest:
        raise PermanentError(
            f"chart archive {file.name} does not match charts.lock: SHA-256 {digest}, locked {release.digest}. "
            f"Remove the archive. If the chart's publisher has released {release.locked_as} again, also remove it from "
            "charts.lock, run `isa charts pull` and review the plan"
        )
