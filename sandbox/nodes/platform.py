"""What the project needs on real nodes: an object store that pods reach, Secrets of a site, `isa` in their network.

`isa` runs with the machine's files and the network of the control plane. One address of the object store then serves
`isa` and pods alike, as at a site. Engines are reached through the API server, as from a workstation.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from cluster.kube import Kube, NotFound
from cluster.polling import polling
from config.loading import ROOT
from errors import TemporaryError
from sandbox import stages
from sandbox.machine import addresses, binaries
from sandbox.machine.paths import write_atomic
from sandbox.nodes.capsules import network
from sandbox.nodes.cluster import Nodes
from sandbox.site import object_store
from sandbox.site import settings as site
from sandbox.site.object_store import ObjectStore

CRD_SECONDS = 60.0
RELAY = "relay-store"
HELMFILE = ROOT / "deployments/kubernetes/sandbox/helmfile.yaml"
SITE_VALUES = ROOT / "config/site-values.yaml"
MONITOR = ("monitoring.coreos.com/v1", "PodMonitor")


@dataclass(frozen=True)
class Platform:
    """The platform's surroundings in a cluster of real nodes.

    Attributes:
        nodes: the cluster; it is up.
        components: whose releases the environment has; nodes for the others' requests are not needed then.
    """

    nodes: Nodes
    components: tuple[str, ...]

    def up(self) -> None:
        """Bring up what is not.

        Raises:
            TemporaryError: the object store, or a kind of Prometheus' operator, is not served in time.
        """
        kube = self.nodes.kube()
        for crd in stages.monitoring_crds():
            kube.apply(crd)
        at = addresses.allocate(self.nodes.name)
        self.nodes.start_relay(RELAY, at.object_store, at.object_store)
        store = object_store.start(
            self.nodes.directory,
            at.object_store,
            at.object_store_console,
            self.nodes.program("minio"),
            listen="0.0.0.0",
            command=self.nodes.control.command,
        )
        site.ensure_secrets(kube, self.nodes.directory, store)
        for file, document in {
            self._helmfile: releases_of(self.components),
            self._site_values: site_values_of(self.components),
        }.items():
            write_atomic(file, yaml.safe_dump(document, sort_keys=False))
        _await_monitors(kube)

    @property
    def store(self) -> ObjectStore:
        """The object store, as pods and `isa` reach it."""
        port = addresses.allocate(self.nodes.name).object_store
        local = object_store.describe(self.nodes.directory, port)
        return replace(local, endpoint=f"http://{network.CONTROL_ADDRESS}:{port}")

    def settings_environ(self) -> dict[str, str]:
        """The ISA_* variables of this platform, for programs in its network."""
        made = site.settings(self.nodes.directory, self.nodes.inner_kubeconfig, self.store)
        return made | {
            "ISA_KUBERNETES__ENGINE_ACCESS": "port-forward",
            "ISA_DEPLOY__GATE": "whole",
            "ISA_PLATFORM__HELMFILE": str(self._helmfile),
            "ISA_PLATFORM__SITE_VALUES": str(self._site_values),
        }

    def isa(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run an `isa` command as administrator, in the network of the control plane."""
        isa = Path(sys.executable).with_name("isa")
        path = os.pathsep.join([binaries.search_path(), os.environ.get("PATH", "")])
        environ = {**os.environ, **self.settings_environ(), "PATH": path}
        argv = self.nodes.control.network_command(str(isa), *words)
        return subprocess.run(
            argv, capture_output=True, text=True, check=False, env=environ, cwd=ROOT
        )

    @property
    def _helmfile(self) -> Path:
        return self.nodes.directory / "platform" / "helmfile.yaml"

    @property
    def _site_values(self) -> Path:
        return self.nodes.directory / "platform" / "site-values.yaml"


def releases_of(components: Collection[str]) -> dict[str, Any]:
    """The sandbox's helmfile with the releases of some components alone."""
    document = _read(HELMFILE)
    kept = [one for one in document["releases"] if one["labels"]["component"] in components]

    def absolute(entry: Any) -> Any:
        return str((HELMFILE.parent / entry).resolve()) if isinstance(entry, str) else entry

    releases = [
        one | {"chart": absolute(one["chart"]), "values": [absolute(v) for v in one["values"]]}
        for one in kept
    ]
    return document | {"releases": releases}


def site_values_of(components: Collection[str]) -> dict[str, Any]:
    """The last values of the same releases."""
    names = {release["name"] for release in releases_of(components)["releases"]}
    return {name: values for name, values in _read(SITE_VALUES).items() if name in names}


def _read(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return document


def _await_monitors(kube: Kube) -> None:
    for _ in polling(CRD_SECONDS, pause=0.1):
        with suppress(NotFound):
            kube.resource(*MONITOR)
            return
    raise TemporaryError(f"the API server does not serve {MONITOR} after {CRD_SECONDS:.0f} s")
