"""Brings Secrets back from a set `platform`, for engines that do not exist yet.

Engines keep their passwords inside their data. After a disaster the data of the sets comes back, so the new platform
must be made with the old passwords. Where there are volumes already, nothing is touched: a Secret that does not fit
locks everybody out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archive.catalogue import find_set
from archive.manifest import PLATFORM
from archive.reader import SetReader
from cluster.kube import Manifest, remember
from components import COMPONENTS
from errors import PermanentError
from operations.environment.environment import Environment

LIST = "secrets.json"
HELM = "Helm"  # what a chart made, it makes again
MANAGER = "app.kubernetes.io/managed-by"
# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names; it is part of a URL too
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
# Their creation gives rights: https://kubernetes.io/docs/concepts/configuration/secret/#secret-types
TOKENS = ("kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token")


@dataclass(frozen=True)
class Reinstated:
    """What was done.

    Attributes:
        replaced: Secrets that had just been generated.
        created: Secrets that were not there.
    """

    replaced: tuple[str, ...]
    created: tuple[str, ...]


def reinstate(environment: Environment, identity: str, backup: str) -> Reinstated:
    """Put the Secrets of a set into the namespace.

    Args:
        environment: opened.
        identity: age private key that opens the set.
        backup: id of a set `platform`.

    Raises:
        Damaged: the set is not what was stored.
        PermanentError: it is no such set, or engines have data here already.
    """
    namespace = environment.settings.kubernetes.namespace
    manifest = find_set(
        environment.store, environment.settings.environment, backup, environment.trust
    )
    if manifest.component != PLATFORM:
        raise PermanentError(
            f"{backup} is a backup of {manifest.component}: Secrets are in backups of {PLATFORM}"
        )
    claims = environment.kube.list("v1", "PersistentVolumeClaim", namespace)
    if claims:
        raise PermanentError(
            f"{namespace} has {len(claims)} volumes, whose engines have passwords of their own. Nothing was changed. "
            "Restore Secrets before the first deploy: isa deploy --only namespace, then this command"
        )
    items: list[dict[str, Any]] = SetReader(environment.store, manifest, identity).json(LIST)[
        "items"
    ]
    ours = {spec.name for component in COMPONENTS.values() for spec in component.secrets}
    replaced, created = [], []
    for wanted in [secret_of(item, namespace) for item in items]:
        remember(wanted)
        name, labels = wanted["metadata"]["name"], wanted["metadata"]["labels"]
        live = environment.kube.get("v1", "Secret", name, namespace)
        if live is None and (name in ours or labels.get(MANAGER) != HELM):
            environment.kube.create(wanted)
            created.append(name)
        elif live is not None and name in ours and live.get("data") != wanted["data"]:
            environment.kube.patch(live, {"data": wanted["data"]})
            replaced.append(name)
    return Reinstated(tuple(replaced), tuple(created))


def secret_of(item: object, namespace: str) -> Manifest:
    """The Secret that an entry of a set stands for: built here, so that an entry can make nothing else of itself.

    Args:
        item: of the list in the set.
        namespace: where it goes.

    Raises:
        PermanentError: it is no Secret, its name is none, or it is of a type whose creation gives rights (a service
            account's token).
    """
    entry = _mapping(item)
    metadata, kind = _mapping(entry.get("metadata")), entry.get("type") or "Opaque"
    name = str(metadata.get("name", ""))
    what = f"{entry.get('kind', 'Secret')} {name!r} of type {kind!r}"
    if entry.get("kind", "Secret") != "Secret" or kind in TOKENS or not NAME.fullmatch(name):
        raise PermanentError(
            f"the manifest lists {what}, which a backup of Secrets cannot hold: nothing was created"
        )
    kept = {key: _mapping(metadata.get(key)) for key in ("labels", "annotations")}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": kind,
        "metadata": {"name": name, "namespace": namespace, **kept},
        "data": _mapping(entry.get("data")),
    }


def _mapping(value: object) -> dict[str, Any]:
    """What should be an object of JSON; an empty one if it is none."""
    return dict(value) if isinstance(value, Mapping) else {}
