"""Of a backup's list of Secrets nothing but Secrets can come, whatever somebody has written into it."""

from __future__ import annotations

from typing import Any

import pytest

from errors import PermanentError
from operations.restore.credentials import secret_of

GENUINE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Secret",
    "type": "Opaque",
    "metadata": {"name": "redis-auth", "labels": {"app": "redis"}},
    "data": {"redis-password": "cGFzc3dvcmQ="},
}


def test_a_secret_comes_back_with_name_labels_and_data_in_our_namespace() -> None:
    made = secret_of(GENUINE, "isa-cloud-production")
    assert made["metadata"]["namespace"] == "isa-cloud-production"
    assert made["metadata"]["labels"] == {"app": "redis"}
    assert made["data"] == GENUINE["data"]


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "ClusterRoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1"},
        {"type": "kubernetes.io/service-account-token"},
        {"type": "bootstrap.kubernetes.io/token"},
    ],
)
def test_what_is_no_plain_secret_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(PermanentError, match="nothing was created"):
        secret_of({**GENUINE, **change}, "isa-cloud-production")


def test_an_entry_can_add_nothing_of_its_own() -> None:
    hostile = {
        **GENUINE,
        "roleRef": {"name": "cluster-admin"},
        "metadata": {**GENUINE["metadata"], "namespace": "kube-system", "ownerReferences": [{}]},
    }
    made = secret_of(hostile, "isa-cloud-production")
    assert set(made) == {"apiVersion", "kind", "type", "metadata", "data"}
    assert set(made["metadata"]) == {"name", "namespace", "labels", "annotations"}
    assert made["metadata"]["namespace"] == "isa-cloud-production"
