"""The releases of an environment: helmfile.yaml, its lock file and its mirrors as checked data.

`cluster.helm.helmfile` defines the file's schema; this module combines its parts: charts with their repositories,
values with their files, needs with their releases.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.dag import CycleError, Dag
from cluster.helm.helmfile import (
    DEFAULT_HISTORY,
    DEFAULT_TIMEOUT_SECONDS,
    Reading,
    ReleaseEntry,
    Repository,
    read_helmfile,
)
from config.text.documents import read
from errors import ConfigurationError, Fault

LOCK_FILE = "charts.lock"  # beside helmfile.yaml, which has a helmfile.lock of its own kind
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


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
        digest: `sha256:…` of the chart's archive by the lock file; "" where it is not locked.
        values: files (absolute paths) and inline maps, later ones win.
        needs: names of releases that must be deployed before.
        timeout: seconds for helm.
        wait: whether helm waits for the pods (Neo4j's members cannot be waited for one by one:
            https://github.com/neo4j/helm-charts/issues/211).
        history: revisions that helm keeps.
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
    digest: str = ""
    history: int = DEFAULT_HISTORY

    @property
    def locked_as(self) -> str:
        """Name of the chart in the lock file, `redis-cluster-13.0.4`."""
        return f"{self.chart.rpartition('/')[2]}-{self.version}"


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


def load_releases(
    path: Path, components: tuple[str, ...], mirrors: Mapping[str, str] | None = None
) -> ReleaseSet:
    """Read and check a helmfile.

    Args:
        path: helmfile.yaml; relative charts and values are relative to it.
        components: names that the label `component` may have.
        mirrors: name of a repository → address to use instead.

    Raises:
        ConfigurationError: with every fault of the file: wrong types, unknown keys, missing values files, unknown
            needs, cycles, duplicates, unknown components.
    """
    reading = read_helmfile(path)
    lock, faults = read_lock(path.parent / LOCK_FILE)
    builder = _Builder(path, components, reading, mirrors or {}, lock)
    releases = [builder.release(entry) for entry in reading.helmfile.releases]
    builder.relations(releases)
    faults = [*reading.faults, *faults, *builder.faults]
    if faults:
        raise ConfigurationError(faults)
    return ReleaseSet(path, tuple(releases))


def read_lock(path: Path) -> tuple[dict[str, str], list[Fault]]:
    """Digests of the charts' archives, `NAME-VERSION` → `sha256:…`; empty where there is no lock file."""
    if not path.exists():
        return {}, []
    documents, faults = read(path)
    document = documents[0] if documents else {}
    if len(documents) > 1 or not isinstance(document, dict):
        return {}, [*faults, Fault(str(path), "must be one map", "`isa charts pull` writes it")]
    for name, digest in document.items():
        if not DIGEST.fullmatch(str(digest)):
            faults.append(Fault(f"{path}: {name}", "must be sha256: and 64 hexadecimal digits"))
    return document, faults


class _Builder:
    """Puts a release together from the parts of the document, and collects faults."""

    def __init__(
        self,
        path: Path,
        components: tuple[str, ...],
        reading: Reading,
        mirrors: Mapping[str, str],
        lock: Mapping[str, str],
    ) -> None:
        self.path = path
        self.components = components
        self.defaults = reading.helmfile.helmDefaults
        self.lock = lock
        self.faults: list[Fault] = []
        self.written = reading.names
        self._told = [fault.where for fault in reading.faults]
        self.repositories = self.addresses(reading.helmfile.repositories, mirrors)

    def fault(self, where: str, message: str, hint: str = "") -> None:
        """Add a fault, unless a schema fault at the same place is its cause."""
        place = f"{self.path}: {where}"
        if not place.startswith(tuple(self._told)):
            self.faults.append(Fault(place, message, hint))

    def addresses(
        self, repositories: tuple[Repository, ...], mirrors: Mapping[str, str]
    ) -> dict[str, str]:
        """Name of each repository → its address, or its mirror's; `oci://…` or `https://…`."""
        found: dict[str, str] = {}
        for repository in repositories:
            name, url = repository.name, repository.url.rstrip("/")
            if name in found:
                self.fault(f"repositories[{name}]", "is declared twice", "keep one of them")
            if repository.oci == ("://" in url):
                what = (
                    "registry and path, without oci://"
                    if repository.oci
                    else "an address with https://"
                )
                self.fault(f"repositories[{name}].url", f"must be {what}")
            found[name] = f"oci://{url}" if repository.oci else url
        for name, address in mirrors.items():
            if name in found:
                found[name] = address.rstrip("/")
        return found

    def release(self, entry: ReleaseEntry) -> Release:
        where = f"releases[{entry.name}]."
        component = entry.labels.get("component", "")
        if component not in self.components:
            near = difflib.get_close_matches(component, self.components, 1)
            hint = (
                f"did you mean {near[0]}?"
                if near
                else f"expected one of {', '.join(self.components)}"
            )
            self.fault(f"{where}labels.component", f"unknown component {component!r}", hint)
        chart, repository = self.chart(where, entry.chart)
        local = chart.startswith("/")
        if not local and not entry.version:
            self.fault(
                f"{where}version",
                "is missing",
                "chart versions are pinned, so that a plan shows what a deploy will do",
            )
        version = "" if local else entry.version or ""
        return Release(
            name=entry.name,
            namespace=entry.namespace,
            component=component,
            chart=chart,
            repository=repository,
            version=version,
            values=self.values(where, entry.values),
            needs=tuple(self.need(where, need) for need in entry.needs),
            timeout=entry.timeout or self.defaults.timeout or DEFAULT_TIMEOUT_SECONDS,
            wait=next((w for w in (entry.wait, self.defaults.wait) if w is not None), False),
            digest=self.lock.get(f"{chart.rpartition('/')[2]}-{version}", ""),
            history=entry.historyMax or self.defaults.historyMax or DEFAULT_HISTORY,
        )

    def chart(self, where: str, chart: str) -> tuple[str, str]:
        if chart.startswith((".", "/")):
            directory = (self.path.parent / chart).resolve()
            if not (directory / "Chart.yaml").is_file():
                self.fault(f"{where}chart", f"{directory} contains no chart")
            return str(directory), ""
        prefix, _, name = chart.partition("/")
        address = self.repositories.get(prefix)
        if address is None and prefix in self.written:
            return chart, ""  # its own faults are told
        if address is None:
            self.fault(
                f"{where}chart", f"repository {prefix!r} is not declared", "add it to repositories"
            )
            return chart, ""
        return (f"{address}/{name}", "") if address.startswith("oci://") else (name, address)

    def values(self, where: str, entries: tuple[Any, ...]) -> tuple[Path | Mapping[str, Any], ...]:
        values: list[Path | Mapping[str, Any]] = []
        for index, entry in enumerate(entries):
            if isinstance(entry, Mapping):
                values.append(entry)
                continue
            file = (self.path.parent / entry).resolve()
            if not file.is_file():
                self.fault(f"{where}values[{index}]", f"file {file} does not exist")
            else:
                self.faults += read(file)[1]
            values.append(file)
        return tuple(values)

    def need(self, where: str, need: str) -> str:
        """The release that is meant by `[[CONTEXT/]NAMESPACE/]NAME`."""
        if need.count("/") > 1:
            self.fault(
                f"{where}needs", f"{need!r} names another cluster", "isa deploys to one cluster"
            )
        return need.split("/")[-1]

    def relations(self, releases: list[Release]) -> None:
        names = [release.name for release in releases]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.fault(f"releases[{name}]", "is declared twice", "release names must be unique")
        graph = Dag()
        for release in releases:
            for need in release.needs:
                if need not in names and need not in self.written:
                    near = difflib.get_close_matches(need, names, 1)
                    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"
                    self.fault(f"releases[{release.name}].needs", f"unknown release {need!r}", hint)
            graph.add(release.name, [need for need in release.needs if need in names])
        try:
            graph.sorted()
            if not self.faults and not self._told:
                ReleaseSet(self.path, tuple(releases)).component_needs().sorted()
        except CycleError as exc:
            self.fault("needs", f"form a cycle: {exc}", "remove one of these edges")
