"""A kubeconfig that is no good is told, whatever is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.target import find_target
from config.models import KubernetesSettings
from errors import PermanentError

CLUSTER = """\
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: one, user: me}}]
clusters: [{name: one, cluster: {server: "https://localhost", certificate-authority-data: %s}}]
users: [{name: me, user: {}}]
"""
BROKEN = {
    "no YAML": "a: [",
    "a text": "kubeconfig",
    "a list": "[1, 2]",
    "empty": "",
    "no contexts": "apiVersion: v1\nkind: Config\n",
    "null for lists": "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: null\n",
    "a certificate that is none": CLUSTER % "abc",
    "bytes": "\x00\x01",
}


@pytest.mark.parametrize("text", list(BROKEN.values()), ids=list(BROKEN))
def test_what_cannot_be_read_is_an_error_of_ours(tmp_path: Path, text: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    names = {"namespace": "a", "control_namespace": "b", "verify_namespace": "c"}
    settings = KubernetesSettings(kubeconfig=file, **names)  # type: ignore[arg-type]
    with pytest.raises(PermanentError, match=r"kubernetes\.kubeconfig"):
        find_target(settings).connect()
