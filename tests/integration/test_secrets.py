"""Credentials are made once, for good, and nobody ever gets to read them in an output."""

from __future__ import annotations

import pytest

from cluster.credentials import ensure_secret, read_secret
from cluster.kube import Conflict, Kube, Manifest
from components import COMPONENTS

from .platform_tree import NEVER_READY, PlatformTree

SECRETS = ("nats-auth", "redis-auth")


def live(tree: PlatformTree) -> dict[str, dict[str, str]]:
    """Values of all Secrets of the platform."""
    found = {name: read_secret(tree.kube, tree.namespace, name) for name in SECRETS}
    return {name: values for name, values in found.items() if values is not None}


@pytest.fixture
def deployed(tree: PlatformTree) -> PlatformTree:
    tree.declare("nats")
    tree.declare("redis")
    assert tree.isa("deploy", "--local").code == 0
    return tree


def test_the_first_deploy_makes_a_value_for_every_key(deployed: PlatformTree) -> None:
    made = live(deployed)
    assert {name: set(values) for name, values in made.items()} == {
        "nats-auth": {"sys-password", "app-password"},
        "redis-auth": {"redis-password"},
    }
    values = [value for secret in made.values() for value in secret.values()]
    assert len(set(values)) == len(values)
    assert all(len(value) == 32 and value.isalnum() and value[0].isalpha() for value in values)


def test_a_redeploy_keeps_every_value(deployed: PlatformTree) -> None:
    before = live(deployed)
    deployed.declare("nats", cpu="20m")
    assert deployed.isa("deploy", "--local").code == 0
    assert live(deployed) == before


def test_only_the_key_that_is_missing_is_made_again(deployed: PlatformTree) -> None:
    before = live(deployed)
    secret = deployed.kube.get("v1", "Secret", "nats-auth", deployed.namespace)
    assert secret is not None
    deployed.kube.patch(secret, {"data": {"app-password": None}})
    plan = deployed.isa("plan", "--json")
    assert plan.code == 3
    assert plan.node("namespace")["reasons"] == ["Secret/nats-auth (app-password): missing"]
    assert '"exists": false' in deployed.isa("secrets", "--json").stdout
    assert deployed.isa("deploy", "--local").code == 0
    after = live(deployed)
    assert after["nats-auth"]["sys-password"] == before["nats-auth"]["sys-password"]
    assert after["nats-auth"]["app-password"] not in ("", before["nats-auth"]["app-password"])
    assert after["redis-auth"] == before["redis-auth"]


def test_no_command_ever_prints_a_value(deployed: PlatformTree) -> None:
    secret = deployed.kube.get("v1", "Secret", "nats-auth", deployed.namespace)
    assert secret is not None
    deployed.kube.patch(secret, {"data": {"app-password": None}})
    deployed.declare("redis", timeout=4, annotations=NEVER_READY)
    said = ""
    for command in (
        ("plan",), ("plan", "--json"), ("deploy", "--local"), ("deploy", "--local", "--json"),
        ("secrets",), ("secrets", "--json"), ("status",), ("status", "--json"),
    ):  # fmt: skip
        words = deployed.isa(*command).words
        assert words, command
        said += words
    assert "redis" in said
    encoded = deployed.kube.get("v1", "Secret", "nats-auth", deployed.namespace)
    assert encoded is not None
    values = [value for made in live(deployed).values() for value in made.values()]
    assert len(values) == 3
    for value in [*values, *encoded["data"].values()]:
        assert value not in said


def test_volumes_whose_password_is_lost_block_the_deploy(deployed: PlatformTree) -> None:
    deployed.kube.delete("v1", "Secret", "redis-auth", deployed.namespace)
    ended = deployed.isa("deploy", "--local", "--json")
    assert ended.code == 1
    (finding,) = ended.report["blocked"]
    assert "Secret redis-auth does not exist but volumes data-redis-cluster-0 do" in finding
    assert "redis-auth" not in live(deployed)


def test_two_that_make_the_same_secret_at_once_agree_on_the_first_ones_values(
    tree: PlatformTree,
) -> None:
    tree.make_namespaces()
    (spec,) = COMPONENTS["nats"].secrets

    class Slower(Kube):
        """Sees no Secret at first, since the other one writes it just then."""

        def create(self, manifest: Manifest) -> Manifest:
            ensure_secret(tree.kube, tree.namespace, spec, "nats")
            with pytest.raises(Conflict):
                super().create(manifest)
            raise Conflict("somebody was faster")

    slower = tree.kube
    slower.__class__ = Slower
    assert ensure_secret(slower, tree.namespace, spec, "nats") == []
    assert set(live(tree)["nats-auth"]) == {"sys-password", "app-password"}
