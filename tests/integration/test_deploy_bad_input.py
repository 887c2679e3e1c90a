"""A deploy refuses what cannot work before it changes anything, and says what is wrong where."""

from __future__ import annotations

import json

import pytest

from .platform_tree import Ended, PlatformTree


def faults(ended: Ended) -> str:
    """The faults of a configuration that was refused."""
    assert ended.code == 2, ended.words
    return "\n".join(json.loads(ended.stderr)["faults"])


def assert_untouched(tree: PlatformTree) -> None:
    assert not tree.exists(tree.namespace)
    assert not tree.exists(tree.control)
    assert tree.kube.get("storage.k8s.io/v1", "StorageClass", tree.storage_class) is None


def assert_not_installed(tree: PlatformTree, ended: Ended) -> None:
    """A blocked preflight: only the namespace of the Leases may be there."""
    assert ended.code == 1, ended.words
    assert ended.report["state"] == "failed"
    assert set(ended.outcomes().values()) == {"not-attempted"}
    assert tree.history("nats") == []
    assert tree.workload("nats") is None
    assert tree.kube.get("storage.k8s.io/v1", "StorageClass", tree.storage_class) is None


@pytest.fixture
def declared(tree: PlatformTree) -> PlatformTree:
    tree.declare("nats")
    tree.declare("qdrant")
    return tree


def test_an_unknown_key_of_the_helmfile_is_named_with_its_likely_meaning(
    declared: PlatformTree,
) -> None:
    declared.release("nats")["tiemout"] = 60
    declared.write_helmfile()
    told = faults(declared.isa("deploy", "--local", "--json"))
    assert f"{declared.directory}/helmfile.yaml: releases[nats].tiemout" in told
    assert "did you mean timeout?" in told
    assert_untouched(declared)


def test_a_missing_values_file_is_named_with_its_path(declared: PlatformTree) -> None:
    declared.release("qdrant")["values"].append("absent.yaml")
    declared.write_helmfile()
    told = faults(declared.isa("deploy", "--local", "--json"))
    assert "helmfile.yaml: releases[qdrant].values[1]" in told
    assert f"{declared.directory}/absent.yaml" in told
    assert_untouched(declared)


def test_a_cycle_of_needs_is_shown_as_a_ring(declared: PlatformTree) -> None:
    declared.release("nats")["needs"] = ["qdrant"]
    declared.release("qdrant")["needs"] = ["nats"]
    declared.write_helmfile()
    told = faults(declared.isa("deploy", "--local", "--json"))
    assert "helmfile.yaml: needs" in told
    assert "nats → qdrant → nats" in told or "qdrant → nats → qdrant" in told
    assert_untouched(declared)


def test_an_unknown_component_is_named_with_the_nearest_known_one(declared: PlatformTree) -> None:
    declared.release("nats")["labels"] = {"component": "natz"}
    declared.write_helmfile()
    told = faults(declared.isa("deploy", "--local", "--json"))
    assert "helmfile.yaml: releases[nats].labels.component: unknown component 'natz'" in told
    assert "did you mean nats?" in told
    assert_untouched(declared)


def test_a_release_declared_twice_is_refused(declared: PlatformTree) -> None:
    declared.helmfile["releases"].append(dict(declared.release("nats")))
    declared.write_helmfile()
    told = faults(declared.isa("deploy", "--local", "--json"))
    assert "helmfile.yaml: releases[nats]: is declared twice" in told
    assert_untouched(declared)


def test_all_faults_of_a_helmfile_are_told_at_once(declared: PlatformTree) -> None:
    declared.helmfile["relaeses"] = []
    declared.release("nats")["needs"] = ["quadrant"]
    declared.release("qdrant")["values"] = ["absent.yaml"]
    declared.write_helmfile()
    told = faults(declared.isa("plan", "--json"))
    assert "did you mean releases?" in told
    assert "unknown release 'quadrant' (did you mean qdrant?)" in told
    assert "absent.yaml" in told


def test_an_unknown_node_is_refused_with_the_known_ones(declared: PlatformTree) -> None:
    told = faults(declared.isa("deploy", "--local", "--json", "--only", "nat"))
    assert "--only: unknown component 'nat'" in told
    assert "known: storage-classes, namespace, postgresql, redis, nats" in told
    assert_untouched(declared)


def test_a_node_that_is_not_declared_is_refused_with_the_declared_ones(
    declared: PlatformTree,
) -> None:
    told = faults(declared.isa("deploy", "--local", "--json", "--only", "redis"))
    assert "--only: unknown component 'redis'" in told
    assert "known: storage-classes, namespace, nats, qdrant" in told
    assert_untouched(declared)


def test_more_members_than_nodes_are_blocked_with_the_number_that_is_missing(
    tree: PlatformTree,
) -> None:
    tree.declare("nats", replicas=10)
    ended = tree.isa("deploy", "--local", "--json")
    assert_not_installed(tree, ended)
    (finding,) = [f for f in ended.report["blocked"] if "capacity" in f]
    assert "nats" in finding
    assert "anti-affinity" in finding
    assert "add 2 node(s)" in finding


def test_nodes_that_are_too_small_are_blocked_with_what_a_pod_asks_for(tree: PlatformTree) -> None:
    tree.declare("nats", replicas=2, cpu="17")
    ended = tree.isa("deploy", "--local", "--json")
    assert_not_installed(tree, ended)
    (finding,) = [f for f in ended.report["blocked"] if "capacity" in f]
    assert "nats" in finding
    assert "2 pod(s) fit on no node (cpu; each pod requests 17 CPU" in finding


def test_a_missing_storage_class_is_blocked_with_who_asks_for_it(tree: PlatformTree) -> None:
    tree.declare("nats", storageClass="array-gold")
    ended = tree.isa("deploy", "--local", "--json")
    assert_not_installed(tree, ended)
    (finding,) = ended.report["blocked"]
    assert finding.startswith("storage class array-gold: used by nats")


@pytest.mark.parametrize(
    ("hard", "told"),
    [
        ({"requests.cpu": "25m"}, "requests.cpu allows 25m, but 0.03"),
        ({"persistentvolumeclaims": "2"}, "persistentvolumeclaims allows 2, but 3"),
    ],
)
def test_a_live_quota_that_is_too_small_is_blocked_with_both_figures(
    tree: PlatformTree, hard: dict[str, str], told: str
) -> None:
    tree.declare("nats", replicas=3)
    tree.make_namespaces()
    tree.kube.create(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "tight", "namespace": tree.namespace},
            "spec": {"hard": hard},
        }
    )
    ended = tree.isa("deploy", "--local", "--json")
    assert_not_installed(tree, ended)
    (finding,) = ended.report["blocked"]
    assert f"tight: {told}" in finding
