"""Creates the Secrets that the charts refer to: each value is generated once and never changed.

Engines keep first-boot passwords inside their data (PostgreSQL, Neo4j, EMQX's dashboard), so a value that is
generated a second time locks everyone out of a healthy database: a known problem of charts that create their own
Secrets (https://github.com/bitnami/charts/issues/2061). So: create what is missing, never change what exists.
"""

from __future__ import annotations

import base64
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cluster.kube import Conflict, Kube
from redaction import redact

LENGTH = 32  # alphanumeric: 190 bits


def password() -> str:
    """Generate a password that starts with a letter and has only letters and digits.

    nats-server parses environment values as configuration: digits first, or a unit behind a number, and it does not
    start (measured on 2.15.1).
    """
    rest = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(LENGTH - 1))
    return redact.remember(secrets.choice(string.ascii_letters) + rest)


@dataclass(frozen=True)
class SecretSpec:
    """A Secret that must exist before a release is installed.

    Attributes:
        name: of the Secret.
        keys: how each of its values is generated.
    """

    name: str
    keys: Mapping[str, Callable[[], str]]


def ensure_secret(kube: Kube, namespace: str, spec: SecretSpec, component: str) -> list[str]:
    """Create the Secret, or the keys that it lacks.

    Args:
        kube: the cluster.
        namespace: of the engines.
        spec: the required keys.
        component: label of the new Secret.

    Returns:
        Names of the keys that were generated; empty if none was missing.
    """
    live = kube.get("v1", "Secret", spec.name, namespace)
    have = (live or {}).get("data", {})
    made = {key: _encode(make()) for key, make in spec.keys.items() if key not in have}
    if not made:
        return []
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": spec.name,
            "namespace": namespace,
            "labels": {
                "app.kubernetes.io/managed-by": "isa-cloud",
                "isa-cloud.io/component": component,
            },
        },
        "data": made,
    }
    if live is not None:
        # resourceVersion: if another client has just added a key, ours must not replace it
        version = live["metadata"]["resourceVersion"]
        kube.patch(manifest, {"metadata": {"resourceVersion": version}, "data": made})
        return sorted(made)
    try:
        kube.create(manifest)
    except Conflict:
        return ensure_secret(kube, namespace, spec, component)
    return sorted(made)


def read_secret(kube: Kube, namespace: str, name: str) -> dict[str, str] | None:
    """Read a Secret's values, decoded; None if there is no such Secret."""
    live = kube.get("v1", "Secret", name, namespace)
    if live is None:
        return None
    return {key: base64.b64decode(value).decode() for key, value in live.get("data", {}).items()}


def _encode(value: str) -> str:
    return base64.b64encode(value.encode()).decode()
