"""One environment: its settings, cluster, helm, declared releases, object store and Leases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import pyrage

from archive.backup.manifest import Manifest as Backup
from archive.catalogue.listing import Catalogue, find_chain, read_catalogue
from archive.evidence.chain import Record, read_record
from archive.object_store.store import Store
from archive.signing import Trust
from cluster.command import Command
from cluster.credentials import read_secret
from cluster.dag import Dag
from cluster.helm.client import INSTALL_HINT, Helm, helm_environ
from cluster.helm.releases import Release, ReleaseSet, load_releases
from cluster.kube import Kube
from cluster.lease import Lease, inquire, lease_of
from cluster.manifests import Manifest, faults_of
from components import COMPONENTS, SETS
from components.access import Access
from components.base import BackupTarget, Component
from config.models import Settings
from errors import ArgumentError, ConfigurationError, Fault, PermanentError
from operations.environment.leases import verify_lease
from operations.environment.place import read_namespace
from operations.environment.render import render_manifest, site_values

STORAGE = "storage-classes"
NAMESPACE = "namespace"
# One answer of an engine during a backup or a restore: it may write a snapshot of a large shard first.
ENGINE_SECONDS = 30.0
CHECK_SECONDS = 4.0  # one answer of a member to a check


class Environment:
    """Everything that a use case needs of an environment. Each part is opened when it is first used, and then cached.

    A use case first opens what it needs (`open_releases`, `open_store`), so that it fails before it starts.

    Args:
        settings: checked settings.

    Attributes:
        components: the engines by name.
        backup_targets: everything that backups are taken of, by name.
    """

    components: Mapping[str, Component] = COMPONENTS
    backup_targets: Mapping[str, BackupTarget] = SETS

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def open_releases(self) -> Environment:
        """Read the declared state and connect to the cluster; nothing is changed.

        Raises:
            ConfigurationError: helmfile.yaml, or the site's values, have faults.
            PermanentError: helm is missing, or the cluster cannot be reached.
        """
        _ = self.releases, self.site, self.helm
        return self

    def open_store(self) -> Environment:
        """Connect to the cluster and the object store.

        Raises:
            PermanentError: the cluster cannot be reached, the store's credentials or the namespace do not exist, or
                the cluster belongs to another environment.
        """
        _ = self.store
        return self

    # ------------------------------------------------------------------ cluster and what it runs
    @cached_property
    def kube(self) -> Kube:
        """Its cluster."""
        return Kube.connect(self.settings.kubernetes)

    @cached_property
    def releases(self) -> ReleaseSet:
        """What helmfile.yaml declares."""
        platform = self.settings.platform
        releases = load_releases(platform.helmfile, tuple(COMPONENTS), self.settings.charts.mirrors)
        _in_one_namespace(releases, self.settings)
        return releases

    @cached_property
    def site(self) -> Mapping[str, Mapping[str, Any]]:
        """Last values of each release."""
        return site_values(self.settings)

    @cached_property
    def helm(self) -> Helm:
        """Helm against its cluster."""
        command = Command("helm", environ=helm_environ(), install_hint=INSTALL_HINT)
        return Helm(command, self.kube.target, self.settings.charts.directory)

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
        """The manifests of the two nodes that are not Helm releases.

        Raises:
            ConfigurationError: a file has faults, or a document that is not a Kubernetes object.
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

    def access(self, timeout_seconds: float = ENGINE_SECONDS) -> Access:
        """Clients of the engines' members; close it, or use it in a `with` block.

        Args:
            timeout_seconds: limit of one request to one member.
        """
        return Access(self.settings, self.kube, timeout_seconds)

    # ------------------------------------------------------------------ object store
    @cached_property
    def cluster_uid(self) -> str:
        """Uid of the engines' namespace, which identifies the cluster in backups.

        Raises:
            PermanentError: the namespace does not exist, or belongs to another environment.
        """
        namespace = read_namespace(self.kube, self.settings)
        if namespace is None:
            raise PermanentError(
                f"namespace {self.settings.kubernetes.namespace} does not exist: run isa deploy first"
            )
        return str(namespace["metadata"]["uid"])

    @cached_property
    def store(self) -> Store:
        """The bucket, of no cluster but this environment's own."""
        _ = self.cluster_uid  # refuses another environment's cluster before its Secret is read
        return Store.open(self.settings.storage.object, self.store_credentials())

    def store_credentials(self) -> dict[str, str]:
        """Credentials of the object store, as they are now.

        Raises:
            PermanentError: they do not exist.
        """
        where = self.settings.kubernetes.control_namespace
        name = self.settings.storage.object.credentials_secret
        credentials = read_secret(self.kube, where, name)
        if credentials is None:
            raise PermanentError(
                f"Secret {where}/{name} does not exist: it has to hold access-key and secret-key of the object store"
            )
        return credentials

    def verify_identity(self) -> str:
        """The verify pool's private key (age), which decrypts backups.

        Raises:
            PermanentError: it does not exist, or is invalid.
        """
        where = self.settings.kubernetes.control_namespace
        name = self.settings.verify.identity_secret
        text = (read_secret(self.kube, where, name) or {}).get("identity", "")
        keys = [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]
        try:
            pyrage.x25519.Identity.from_str(keys[-1] if keys else "")
        except pyrage.IdentityError as exc:
            raise PermanentError(
                f"Secret {where}/{name} has no age private key under `identity`: without it no backup can be decrypted"
            ) from exc
        return keys[-1]

    @property
    def trust(self) -> Trust:
        """The trusted signers of manifests and verdicts."""
        return Trust.of(self.settings)

    def catalogue(self, components: Iterable[str] = ()) -> Catalogue:
        """List the backups; of all components if none is named."""
        names = tuple(components) or tuple(SETS)
        return read_catalogue(
            self.store,
            self.settings.environment,
            names,
            self.trust,
            {name: self._recorded(name) for name in names},
        )

    def backup_chain(self, backup: str) -> tuple[Backup, tuple[Backup, ...]]:
        """The manifest of a backup, and those of the earlier backups that it needs.

        Raises:
            PermanentError, TemporaryError: as `archive.catalogue.listing.find_chain`.
        """
        return find_chain(self.store, self.settings.environment, backup, self.trust)

    def _recorded(self, component: str) -> Record:
        """The numbers of verdicts on a component's backups, from its Lease (`operations.state.verdict_record`)."""
        return read_record(inquire(self.kube, self.settings, verify_lease(component))[0])


def require_known(only: Iterable[str], known: Iterable[str]) -> None:
    """Refuse unknown names in `--only`.

    Raises:
        ArgumentError: for each of them, with the known ones.
    """
    names = list(known)
    wrong = [name for name in only if name not in names]
    if wrong:
        hint = f"known: {', '.join(names)}"
        raise ArgumentError(
            [Fault("--only", f"unknown component {name!r}", hint) for name in wrong]
        )


def _in_one_namespace(releases: ReleaseSet, settings: Settings) -> None:
    """Refuse a helmfile whose releases have another namespace than the Secrets, quota and policies."""
    namespace = settings.kubernetes.namespace
    strays = [release for release in releases.releases if release.namespace != namespace]
    if strays:
        raise ConfigurationError(
            [
                Fault(
                    f"{releases.path}: releases[{release.name}].namespace",
                    f"is {release.namespace}, but kubernetes.namespace in the settings is {namespace}",
                    "the two must be the same",
                )
                for release in strays
            ]
        )
