"""Logging in as one of the service accounts that namespace.yaml makes."""

from __future__ import annotations

from pathlib import Path

import yaml

from config.models import KubernetesSettings
from sandbox.cluster import Sandbox

STORE_SECRET = "ISA_STORAGE__OBJECT__CREDENTIALS_SECRET"
PRODUCTION, CONTROL, VERIFY = "isa-cloud-production", "isa-cloud-control", "isa-cloud-verify"


def environ_of(sandbox: Sandbox, kubeconfig: Path, **more: str) -> dict[str, str]:
    """Environment of processes that have the kubeconfig of an account, and its key of the object store."""
    return {**sandbox.environ(), **more, **identity_of(kubeconfig)}


def identity_of(kubeconfig: Path) -> dict[str, str]:
    """What makes a process one of an account, as worker.yaml says it."""
    own = dict.fromkeys(("ISA_KUBERNETES__KUBECONFIG", "KUBECONFIG"), str(kubeconfig))
    return {**own, STORE_SECRET: f"isa-store-{kubeconfig.name.removeprefix('isa-')}"}


PLATFORM = KubernetesSettings(
    namespace=PRODUCTION, control_namespace=CONTROL, verify_namespace=VERIFY
)


def log_in(
    sandbox: Sandbox, directory: Path, name: str, platform: KubernetesSettings = PLATFORM
) -> KubernetesSettings:
    """Log in as a service account, by the TokenRequest API as a pod does; returns the way to the cluster."""
    answer = sandbox.kube().request(
        "POST",
        f"/api/v1/namespaces/{platform.control_namespace}/serviceaccounts/{name}/token",
        body={
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        },
    )
    document = yaml.safe_load(sandbox.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": answer["status"]["token"]}
    file = directory / name
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(document))
    return platform.model_copy(update={"kubeconfig": file, "context": None})
