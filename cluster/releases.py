"""Reads helmfile.yaml, the one source of the releases, into checked data.

The file stays a document that helmfile itself accepts (https://helmfile.readthedocs.io/en/latest/#configuration), so
the operator always has a way out. We read the plain part of that language and refuse the rest: a key that we would
ignore and helmfile would obey is a trap.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.dag import CycleError, Dag
from errors import ConfigurationError, Fault

TOP_KEYS = {"repositories", "helmDefaults", "releases"}
REPOSITORY_KEYS = {"name", "url", "oci"}
DEFAULT_KEYS = {
    "timeout",
    "wait",
    "createNamespace",
    "historyMax",
    "atomic",
    "cleanupOnFail",
    "skipDeps",
}
RELEASE_KEYS = {
    "name", "namespace", "chart", "version", "values", "needs", "labels", "timeout", "wait",
    "createNamespace", "historyMax", "atomic", "cleanupOnFail", "skipDeps",
}  # fmt: skip
DEFAULT_TIMEOUT_SECONDS = 300  # helm's and helmfile's own


@dataclass(frozen=True)
class Release:
    """One Helm release as helmfile.yaml declares it.

    Attributes:
        name: release name, unique in its namespace.
        namespace: where it is installed.
        component: engine that it belongs to (label `component`).
        chart: path of a local chart, `oci://…` reference, or chart name when `repository` is set.
        repository: address of a classic chart repository, or "".
        version: pinned chart version, or "" for a local chart.
        values: files (absolute paths) and inline maps, later ones win.
        needs: names of releases that must be done before.
        timeout: seconds for helm.
        wait: whether helm waits for the pods (Neo4j's members cannot be waited for one by one:
            https://github.com/neo4j/helm-charts/issues/211).
    """

    name: str
    namespace: str
    component: str
    chart: str
    repository: str
    version: str
    values: tuple[Path | Mapping[str, Any], ...]
    needs: tuple[str, ...]
    timeout: int
    wait: bool


@dataclass(frozen=True)
class ReleaseSet:
    """All releases of an environment, in file order."""

    path: Path
    releases: tuple[Release, ...]

    def of(self, component: str) -> list[Release]:
        """Releases of one component."""
        return [release for release in self.releases if release.component == component]

    def components(self) -> list[str]:
        """Components in the order of their first release."""
        return list(dict.fromkeys(release.component for release in self.releases))

    def component_needs(self) -> Dag:
        """The graph of components: an edge where a release needs a release of another component."""
        component = {release.name: release.component for release in self.releases}
        dag = Dag()
        for name in self.components():
            dag.add(name)
        for release in self.releases:
            needs = {component[need] for need in release.needs} - {release.component}
            dag.add(release.component, sorted(needs))
        return dag


def load_releases(path: Path, components: tuple[str, ...]) -> ReleaseSet:
    """Read and check a helmfile.

    Args:
        path: helmfile.yaml; relative charts and values are relative to it.
        components: names that the label `component` may have.

    Raises:
        ConfigurationError: with every fault of the file: unknown keys, missing values files, unknown needs, cycles,
            duplicates, unknown components.
    """
    reader = _Reader(path, components)
    releases = reader.read()
    if reader.faults:
        raise ConfigurationError(reader.faults)
    return ReleaseSet(path, tuple(releases))


class _Reader:
    def __init__(self, path: Path, components: tuple[str, ...]) -> None:
        self.path = path
        self.components = components
        self.faults: list[Fault] = []

    def fault(self, where: str, message: str, hint: str = "") -> None:
        self.faults.append(Fault(f"{self.path}: {where}", message, hint))

    def read(self) -> list[Release]:
        try:
            document = yaml.safe_load(self.path.read_text())
        except (OSError, yaml.YAMLError) as exc:
            raise ConfigurationError([Fault(str(self.path), f"cannot be read: {exc}")]) from exc
        if not isinstance(document, dict):
            raise ConfigurationError(
                [Fault(str(self.path), "is not a map", "see helmfile's documentation")]
            )
        self.known_keys(document, TOP_KEYS, "")
        repositories: dict[str, dict[str, Any]] = {}
        for index, repository in enumerate(document.get("repositories") or []):
            self.known_keys(repository, REPOSITORY_KEYS, f"repositories[{index}].")
            repositories[repository.get("name", "")] = repository
        defaults = document.get("helmDefaults") or {}
        self.known_keys(defaults, DEFAULT_KEYS, "helmDefaults.")
        releases = [
            self.release(index, entry, repositories, defaults)
            for index, entry in enumerate(document.get("releases") or [])
        ]
        if not releases:
            self.fault("releases", "is empty", "there is nothing to deploy")
        self.relations(releases)
        return releases

    def known_keys(self, entry: Mapping[str, Any], known: set[str], prefix: str) -> None:
        for key in entry:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, 1)
                self.fault(
                    f"{prefix}{key}",
                    "is not a key that this project reads",
                    f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}",
                )

    def release(
        self,
        index: int,
        entry: Mapping[str, Any],
        repositories: Mapping[str, Mapping[str, Any]],
        defaults: Mapping[str, Any],
    ) -> Release:
        name = str(entry.get("name", f"#{index}"))
        where = f"releases[{name}]."
        self.known_keys(entry, RELEASE_KEYS, where)
        for key in ("name", "namespace", "chart"):
            if not entry.get(key):
                self.fault(f"{where}{key}", "is missing")
        component = str((entry.get("labels") or {}).get("component", ""))
        if component not in self.components:
            near = difflib.get_close_matches(component, self.components, 1)
            hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(self.components)}"
            self.fault(f"{where}labels.component", f"unknown component {component!r}", hint)
        chart, repository = self.chart(where, str(entry.get("chart", "")), repositories)
        local = chart.startswith("/")
        if not local and not entry.get("version"):
            self.fault(
                f"{where}version", "is missing", "charts are pinned, so that a plan means something"
            )
        return Release(
            name=name,
            namespace=str(entry.get("namespace", "")),
            component=component,
            chart=chart,
            repository=repository,
            version="" if local else str(entry.get("version", "")),
            values=self.values(where, entry.get("values") or []),
            needs=tuple(str(need).split("/")[-1] for need in entry.get("needs") or []),
            timeout=int(entry.get("timeout", defaults.get("timeout", DEFAULT_TIMEOUT_SECONDS))),
            wait=bool(entry.get("wait", defaults.get("wait", False))),
        )

    def chart(
        self, where: str, chart: str, repositories: Mapping[str, Mapping[str, Any]]
    ) -> tuple[str, str]:
        if chart.startswith((".", "/")):
            directory = (self.path.parent / chart).resolve()
            if not (directory / "Chart.yaml").is_file():
                self.fault(f"{where}chart", f"there is no chart in {directory}")
            return str(directory), ""
        prefix, _, rest = chart.partition("/")
        repository = repositories.get(prefix)
        if repository is None:
            self.fault(
                f"{where}chart", f"repository {prefix!r} is not declared", "add it to repositories"
            )
            return chart, ""
        address = str(repository.get("url", "")).rstrip("/")
        return (f"oci://{address}/{rest}", "") if repository.get("oci") else (rest, address)

    def values(self, where: str, entries: list[Any]) -> tuple[Path | Mapping[str, Any], ...]:
        values: list[Path | Mapping[str, Any]] = []
        for index, entry in enumerate(entries):
            if isinstance(entry, Mapping):
                values.append(entry)
                continue
            file = (self.path.parent / str(entry)).resolve()
            if not file.is_file():
                self.fault(f"{where}values[{index}]", f"there is no file {file}")
            values.append(file)
        return tuple(values)

    def relations(self, releases: list[Release]) -> None:
        names = [release.name for release in releases]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.fault(f"releases[{name}]", "is declared twice", "release names must be unique")
        graph = Dag()
        for release in releases:
            for need in release.needs:
                if need not in names:
                    near = difflib.get_close_matches(need, names, 1)
                    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"
                    self.fault(f"releases[{release.name}].needs", f"unknown release {need!r}", hint)
            graph.add(release.name, [need for need in release.needs if need in names])
        try:
            graph.sorted()
            ReleaseSet(
                self.path, tuple(r for r in releases)
            ).component_needs().sorted() if not self.faults else None
        except CycleError as exc:
            self.fault("needs", f"form a cycle: {exc}", "remove one of these edges")
