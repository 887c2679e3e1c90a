"""What a site provides around the platform: keys, the object store's accounts, and the settings that name them."""

from __future__ import annotations

import json
from pathlib import Path

from cluster.kube import Kube
from sandbox.machine import postgres
from sandbox.site import keys, object_store
from sandbox.site.object_store import ObjectStore

CONTROL_NAMESPACE = "isa-cloud-control"


def settings(directory: Path, kubeconfig: Path, store: ObjectStore) -> dict[str, str]:
    """The ISA_* variables that point the product at a sandbox.

    Args:
        directory: its state.
        kubeconfig: of its administrator.
        store: its object store, as the product reaches it.
    """
    return {
        "ISA_ENV": "sandbox",
        "ISA_KUBERNETES__KUBECONFIG": str(kubeconfig),
        "ISA_STORAGE__OBJECT__ENDPOINT": store.endpoint,
        "ISA_STORAGE__OBJECT__BUCKET": store.bucket,
        "ISA_BACKUP__AGE_RECIPIENTS": json.dumps(keys.recipients(directory)),
        "ISA_BACKUP__SIGNERS": json.dumps(keys.backup_signers(directory)),
        "ISA_VERIFY__SIGNERS": json.dumps(keys.signers(directory)),
        "ISA_BACKUP__PROGRAMS": json.dumps([str(postgres.programs())]),
        "ISA_BACKUP__SPOOL": str(directory / "spool"),
    }


def ensure_secrets(kube: Kube, directory: Path, store: ObjectStore) -> None:
    """Create the control namespace and the Secrets that production's administrator creates in it.

    Args:
        kube: the cluster.
        directory: state of the sandbox.
        store: its object store, as this process reaches it; it gets an account for each Secret.
    """
    labels = {"app.kubernetes.io/managed-by": "isa-cloud"}
    namespace = {"name": CONTROL_NAMESPACE}
    if kube.get("v1", "Namespace", CONTROL_NAMESPACE) is None:
        kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": namespace})
    secrets = {
        "infotrend-object": {"access-key": store.access_key, "secret-key": store.secret_key},
        "isa-verify-identity": {
            "identity": keys.identity_file(directory, "verify").read_text(encoding="utf-8")
        },
        "isa-backup-signing": {"key": keys.signing_file(directory).read_text(encoding="utf-8")},
    }
    for name, values in object_store.users(directory, store).items():
        secrets[f"isa-store-{name}"] = values
    for name, values in secrets.items():
        kube.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "Opaque",
                "metadata": {"name": name, "namespace": CONTROL_NAMESPACE, "labels": labels},
                "stringData": values,
            },
            manager="isa-sandbox",
        )
