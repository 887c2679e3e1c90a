"""The charts of an environment: which are stored and locked; and storing and locking them. Needs no cluster."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from cluster.command import Command
from cluster.helm.charts import kept_archive
from cluster.helm.client import INSTALL_HINT, Helm, helm_environ
from cluster.helm.releases import LOCK_FILE, Release, load_releases, read_lock
from cluster.target import Target
from config.models import COMPONENTS, Settings
from errors import ConfigurationError, IsaError, PermanentError

HEAD = "# Written by `isa charts pull`: SHA-256 of each chart archive. Commit it with charts.directory.\n"


@dataclass(frozen=True)
class ChartState:
    """One chart of helmfile.yaml.

    Attributes:
        chart: `NAME-VERSION`.
        kept: whether its archive is in charts.directory.
        locked: its digest in the lock file; "" if it has none.
    """

    chart: str
    kept: bool
    locked: str


def chart_states(settings: Settings) -> list[ChartState]:
    """The state of each chart; local ones, as in the sandbox, are left out.

    Raises:
        ConfigurationError: helmfile.yaml has faults.
    """
    found = {
        release.locked_as: ChartState(
            release.locked_as,
            kept_archive(settings.charts.directory, release) is not None,
            release.digest,
        )
        for release in _remote(settings)
    }
    return list(found.values())


def pull_charts(settings: Settings) -> list[ChartState]:
    """Pull every chart that is not kept, and write the digests of all into the lock file.

    A digest that is in the lock file is never replaced: it says what the archive must be.

    Raises:
        ConfigurationError: helmfile.yaml has faults.
        PermanentError: names every chart that cannot be pulled; the others are stored and locked.
    """
    helm = Helm(
        Command("helm", environ=helm_environ(), install_hint=INSTALL_HINT),
        Target({}),
        settings.charts.directory,
    )
    releases = {release.locked_as: release for release in _remote(settings)}
    digests: dict[str, str] = {}
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="isa-charts-") as work:
        for name, release in releases.items():
            try:
                digests[name] = helm.charts.digest(release, Path(work))
                if kept_archive(settings.charts.directory, release) is None:
                    failed.append(f"{name} cannot be stored in {settings.charts.directory}")
            except IsaError as exc:
                failed.append(str(exc))
    _lock(settings.platform.helmfile.parent / LOCK_FILE, digests, set(releases))
    if failed:
        raise PermanentError("; ".join(failed))
    return chart_states(settings)


def _remote(settings: Settings) -> list[Release]:
    declared = load_releases(settings.platform.helmfile, COMPONENTS, settings.charts.mirrors)
    return [release for release in declared.releases if release.version]


def _lock(path: Path, digests: dict[str, str], declared: set[str]) -> None:
    """Add digests to the lock file, and drop those of charts that are not declared any more."""
    before, faults = read_lock(path)
    if faults:
        raise ConfigurationError(faults)
    lines = {name: digest for name, digest in {**before, **digests}.items() if name in declared}
    if not lines and not path.exists():
        return
    text = HEAD + "".join(f"{name}: {digest}\n" for name, digest in sorted(lines.items()))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise PermanentError(f"{path} cannot be written: {exc.strerror}") from exc
