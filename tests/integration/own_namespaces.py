"""Namespaces of a test's own, with parts of namespace.yaml, and what the API server refuses in them."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from cluster.kube import Kube, Manifest
from config.loading import load
from config.models import Settings
from errors import PermanentError
from operations.environment.render import render_manifest
from sandbox.cluster import Sandbox

BOUNDS = {"Namespace", "LimitRange", "ResourceQuota", "ServiceAccount"}
ADMISSION = BOUNDS | {
    "Role", "RoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
}  # fmt: skip


def own_settings(sandbox: Sandbox, prefix: str) -> Settings:
    """The sandbox's settings with namespaces that no other test has."""
    settings, name = load("sandbox", environ=sandbox.settings_environ()), uuid.uuid4().hex[:6]
    own = {
        "namespace": f"{prefix}-{name}",
        "control_namespace": f"{prefix}-{name}-c",
        "verify_namespace": f"{prefix}-{name}-v",
    }
    return settings.model_copy(update={"kubernetes": settings.kubernetes.model_copy(update=own)})


@contextmanager
def namespaces(kube: Kube, settings: Settings, kinds: Collection[str]) -> Iterator[None]:
    """Apply objects of these kinds in a block; behind it those of the cluster are deleted, with the namespaces."""
    documents = render_manifest(settings.platform.namespace_manifest, settings)
    applied = [document for document in documents if document["kind"] in kinds]
    for document in applied:
        kube.apply(document)
    yield
    for document in applied:
        if "namespace" not in document["metadata"]:
            kube.delete(document["apiVersion"], document["kind"], document["metadata"]["name"])


def refused(kube: Kube, manifest: Manifest) -> str:
    """Why the API server refuses an object; "" if it takes it. Nothing is created."""
    resource = kube.resource(manifest["apiVersion"], manifest["kind"])
    path = resource.path(manifest["metadata"]["namespace"])
    try:
        kube.request("POST", path, body=manifest, query={"dryRun": "All"})
    except PermanentError as exc:
        return str(exc)
    return ""
