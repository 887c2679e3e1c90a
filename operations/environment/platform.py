"""One environment, opened: its settings, its cluster, helm, and the releases that it declares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cluster.command import Command
from cluster.dag import Dag
from cluster.helm import INSTALL_HINT, Helm, helm_environ
from cluster.kube import Kube
from cluster.lease import Lease, lease_of
from cluster.manifests import Manifest, faults_of
from cluster.releases import Release, ReleaseSet, load_releases
from components import COMPONENTS
from config.models import Settings
from errors import ConfigurationError, Fault
from operations.environment.render import render_manifest, site_values

STORAGE = "storage-classes"
NAMESPACE = "namespace"


@dataclass(frozen=True)
class Platform:
    """Everything that a use case needs of an environment.

    Attributes:
        settings: checked settings.
        kube: its cluster.
        helm: helm against that cluster.
        releases: what helmfile.yaml declares.
        site: last values of each release.
    """

    settings: Settings
    kube: Kube
    helm: Helm
    releases: ReleaseSet
    site: Mapping[str, Mapping[str, Any]]

    @classmethod
    def open(cls, settings: Settings) -> Platform:
        """Read the declared state and connect; nothing is changed.

        Raises:
            ConfigurationError: helmfile.yaml, or a manifest, has faults.
            PermanentError: helm is missing, or there is no way to the cluster.
        """
        charts = settings.charts
        releases = load_releases(settings.platform.helmfile, tuple(COMPONENTS), charts.mirrors)
        _in_one_namespace(releases, settings)
        site = site_values(settings)
        command = Command("helm", environ=helm_environ(), install_hint=INSTALL_HINT)
        kube = Kube.connect(settings.kubernetes)
        return cls(settings, kube, Helm(command, kube.target, charts.directory), releases, site)

    @cached_property
    def graph(self) -> Dag:
        """The nodes of a deploy: storage classes → namespace → components, with the edges of `needs`."""
        dag = Dag()
        dag.add(STORAGE)
        dag.add(NAMESPACE, [STORAGE])
        components = self.releases.component_needs()
        for component in (name for name in COMPONENTS if name in components):
            dag.add(component, [NAMESPACE, *components.needs(component)])
        return dag

    @cached_property
    def manifests(self) -> dict[str, list[Manifest]]:
        """What the two nodes that are not Helm's apply.

        Raises:
            ConfigurationError: a file has faults, or a document that is no Kubernetes object.
        """
        platform = self.settings.platform
        paths = {STORAGE: platform.storage_manifest, NAMESPACE: platform.namespace_manifest}
        manifests = {node: render_manifest(path, self.settings) for node, path in paths.items()}
        faults = [
            Fault(str(paths[node]), fault)
            for node, documents in manifests.items()
            for document in documents
            for fault in faults_of(document)
        ]
        if faults:
            raise ConfigurationError(faults)
        return manifests

    def site_of(self, release: Release) -> Mapping[str, Any]:
        """Last values of a release."""
        return self.site.get(release.name, {})

    def lease(self, name: str, purpose: str) -> Lease:
        """A Lease by its name (`operations.environment.leases`)."""
        return lease_of(self.kube, self.settings, name, purpose)


def require_known(only: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names given by `--only` that are none.

    Raises:
        ConfigurationError: for each of them, with those that there are.
    """
    names = list(known)
    wrong = [name for name in only if name not in names]
    if wrong:
        hint = f"known: {', '.join(names)}"
        raise ConfigurationError(
            [Fault("--only", f"unknown component {name!r}", hint) for name in wrong]
        )


def _in_one_namespace(releases: ReleaseSet, settings: Settings) -> None:
    """Refuse a helmfile whose releases would land elsewhere than Secrets, quota and policies do."""
    namespace = settings.kubernetes.namespace
    strays = [release for release in releases.releases if release.namespace != namespace]
    if strays:
        raise ConfigurationError(
            [
                Fault(
                    f"{releases.path}: releases[{release.name}].namespace",
                    f"is {release.namespace}, but kubernetes.namespace of the settings is {namespace}",
                    "the two must be the same",
                )
                for release in strays
            ]
        )
