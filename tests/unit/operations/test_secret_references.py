"""Preflight knows every key of a Secret without which a pod of production would not start."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.manifests import without_nulls
from operations.deploy.preflight.checks import secret_references

from ..sandbox_charts.rendering import RELEASES, production
from ..sandbox_charts.test_pods import SECRETS

# Mounted whole, so that a rendering does not say which key the engine reads.
MOUNTED_WHOLE = {("neo4j-auth", "NEO4J_AUTH")} | {
    ("emqx-auth", key) for key in SECRETS["emqx-auth"]
}


def test_every_key_of_productions_secrets_is_known_though_the_charts_list_no_items() -> None:
    known = {
        reference
        for names in RELEASES.values()
        for name in names
        for manifest in production(name)
        for reference in secret_references(without_nulls(manifest))
    }
    keys = {(secret, key) for secret, names in SECRETS.items() for key in names}

    assert keys - MOUNTED_WHOLE <= known
    assert {name for name, _key in known} == set(SECRETS)


@pytest.mark.parametrize(
    ("secret", "references"),
    [
        ({}, [("auth", ""), ("auth", "password")]),
        ({"optional": True}, []),
        ({"items": [{"key": "a", "path": "password"}]}, [("auth", ""), ("auth", "a")]),
    ],
    ids=["whole", "optional", "with items"],
)
def test_a_key_mounted_by_its_sub_path_is_needed(
    secret: dict[str, Any], references: list[tuple[str, str]]
) -> None:
    mounts = [
        {"name": "creds", "mountPath": "/secrets/password", "subPath": "password"},
        {"name": "data", "mountPath": "/data", "subPath": "not-a-key"},
    ]
    volumes = [
        {"name": "creds", "secret": {"secretName": "auth", **secret}},
        {"name": "data", "emptyDir": {}},
    ]
    pod = {"containers": [{"name": "engine", "volumeMounts": mounts}], "volumes": volumes}

    manifest = {"kind": "StatefulSet", "spec": {"template": {"spec": pod}}}
    assert list(secret_references(manifest)) == references
