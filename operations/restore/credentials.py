"""Restores Secrets from a backup of `platform`, for engines that do not exist yet.

Engines keep their passwords inside their data. After a disaster the data of the backups is restored, so the new
platform must be created with the old passwords. If volumes exist already, nothing is changed: a Secret that does not
match locks everyone out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archive.backup.manifest import PLATFORM
from archive.backup.reader import SetReader
from archive.catalogue.listing import find_set
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
        created: Secrets that did not exist.
    """

    replaced: tuple[str, ...]
    created: tuple[str, ...]


def reinstate(environment: Environment, identity: str, backup: str) -> Reinstated:
    """Restore the Secrets of a backup into the namespace.

    Args:
        environment: opened.
        identity: age private key that opens the set.
        backup: id of a set `platform`.

    Raises:
        Damaged: the set is not what was stored.
        PermanentError: it is another kind of backup, or engines have data here already.
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
    for secret in [secret_of(item, namespace) for item in items]:
        remember(secret)
        name, labels = secret["metadata"]["name"], secret["metadata"]["labels"]
        live = environment.kube.get("v1", "Secret", name, namespace)
        if live is None and (name in ours or labels.get(MANAGER) != HELM):
            environment.kube.create(secret)
            created.append(name)
        elif live is not None and name in ours and live.get("data") != secret["data"]:
            environment.kube.patch(live, {"data": secret["data"]})
            replaced.append(name)
    return Reinstated(tuple(replaced), tuple(created))


def secret_of(item: object, namespace: str) -> Manifest:
    """Build the Secret of an entry in a backup, from name, labels and data only, so that it can be nothing else.

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
    copied = {key: _mapping(metadata.get(key)) for key in ("labels", "annotations")}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": kind,
        "metadata": {"name": name, "namespace": namespace, **copied},
        "data": _mapping(entry.get("data")),
    }


def _mapping(value: object) -> dict[str, Any]:
    """Return a value if it is a JSON object; else an empty one."""
    return dict(value) if isinstance(value, Mapping) else {}
