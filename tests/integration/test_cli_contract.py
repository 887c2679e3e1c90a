"""What scripts may rely on: the shapes that `--json` prints, where it prints them, and the exit codes.

0 done, 1 failed, 2 usage or configuration with nothing changed; `plan` exits 3 if a deploy would change something.
"""

from __future__ import annotations

import base64
from typing import Any

import pytest

from sandbox.cluster import Sandbox

from .platform_tree import NEVER_READY, Ended, PlatformTree

pytestmark = pytest.mark.integration


def document(ended: Ended, code: int) -> dict[str, Any]:
    """What a command printed, which must be its document and nothing else."""
    assert ended.code == code, ended.words
    return ended.report


def error(ended: Ended, code: int) -> dict[str, Any]:
    """How a command failed: JSON on standard error, nothing on standard output."""
    assert ended.code == code, ended.words
    assert ended.stdout == ""
    return ended.report


@pytest.fixture
def declared(tree: PlatformTree) -> PlatformTree:
    tree.declare("nats", replicas=3)
    tree.declare("qdrant", needs=("nats",), timeout=5)
    return tree


def test_an_environment_from_nothing_to_unchanged(declared: PlatformTree) -> None:
    plan = document(declared.isa("plan", "--json"), 3)
    assert plan["changes"]
    assert [(node["name"], node["action"]) for node in plan["nodes"]] == [
        (name, "install") for name in ("storage-classes", "namespace", "nats", "qdrant")
    ]
    assert [release["name"] for release in plan["nodes"][2]["releases"]] == ["nats"]
    status = document(declared.isa("status", "--json"), 1)
    assert not status["ready"]
    missing = document(declared.isa("secrets", "--json"), 0)
    assert not any(row["exists"] for row in missing["secrets"])

    deploy = document(declared.isa("deploy", "--local", "--json"), 0)
    assert deploy["state"] == "completed"
    assert {node["outcome"] for node in deploy["nodes"]} == {"installed"}
    assert all(node["seconds"] > 0 for node in deploy["nodes"])
    assert deploy["seconds"] > max(node["seconds"] for node in deploy["nodes"])

    assert not document(declared.isa("plan", "--json"), 0)["changes"]
    status = document(declared.isa("status", "--json"), 0)
    assert status["ready"]
    assert [c["name"] for c in status["components"]] == ["nats", "qdrant"]
    assert [len(c["members"]) for c in status["components"]] == [3, 1]
    assert len(document(declared.isa("status", "--only", "qdrant", "--json"), 0)["components"]) == 1
    made = document(declared.isa("secrets", "--json"), 0)
    assert {(row["secret"], row["key"]) for row in made["secrets"] if row["exists"]} >= {
        ("nats-auth", "sys-password"),
        ("qdrant-auth", "api-key"),
    }
    again = document(declared.isa("deploy", "--local", "--json"), 0)
    assert {node["outcome"] for node in again["nodes"]} == {"unchanged"}


def test_no_command_prints_a_password(declared: PlatformTree) -> None:
    document(declared.isa("deploy", "--local", "--only", "namespace", "--json"), 0)
    live = declared.kube.get("v1", "Secret", "nats-auth", declared.namespace)
    assert live is not None and len(live["data"]) == 2
    passwords = [base64.b64decode(value).decode() for value in live["data"].values()]

    for arguments in (
        ["secrets"],
        ["plan"],
        ["status"],
        ["deploy", "--local", "--only", "namespace"],
    ):
        for words in (arguments, [*arguments, "--json"]):
            said = declared.isa(*words).words
            assert said
            assert not [password for password in passwords if password in said], words


def test_a_failed_deploy_exits_with_one_and_says_what_became_of_each_node(
    declared: PlatformTree,
) -> None:
    declared.declare("nats", timeout=3, annotations=NEVER_READY)

    report = document(declared.isa("deploy", "--local", "--json"), 1)

    assert report["state"] == "failed"
    nodes = {node["name"]: node for node in report["nodes"]}
    assert nodes["nats"]["outcome"] == "failed"
    assert "nats" in nodes["nats"]["reason"]
    assert (nodes["qdrant"]["outcome"], nodes["qdrant"]["reason"]) == ("skipped", "needs nats")
    assert nodes["qdrant"]["seconds"] == 0


def test_a_blocked_preflight_exits_with_one_and_attempts_nothing(declared: PlatformTree) -> None:
    declared.declare("nats", replicas=30)

    plan = document(declared.isa("plan", "--json"), 1)
    deploy = document(declared.isa("deploy", "--local", "--json"), 1)

    assert plan["blocked"]
    assert [c["name"] for c in plan["preflight"] if c["critical"] and not c["ok"]] == [
        "capacity for nats"
    ]
    assert deploy["state"] == "failed"
    assert {node["outcome"] for node in deploy["nodes"]} == {"not-attempted"}
    assert len(deploy["blocked"]) == 1


def test_only_some_nodes_leave_the_others_not_attempted(declared: PlatformTree) -> None:
    report = document(declared.isa("deploy", "--local", "--only", "nats", "--json"), 0)

    assert report["state"] == "completed"
    outcomes = {node["name"]: (node["outcome"], node["reason"]) for node in report["nodes"]}
    assert outcomes["nats"] == ("installed", "")
    assert outcomes["qdrant"] == ("not-attempted", "not selected")


@pytest.mark.parametrize("command", ["plan", "deploy", "status", "secrets"])
def test_an_incomplete_configuration_exits_with_two_and_names_every_fault(
    tree: PlatformTree, command: str
) -> None:
    told = error(tree.isa(command, "--env", "production", "--json"), 2)

    assert "nothing has been changed" in told["error"]
    faults = "\n".join(told["faults"])
    for key in (
        "storage.block.provisioner",
        "storage.nfs.server",
        "licences.neo4j",
        "images.minio",
    ):
        assert key in faults


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "--env", "moon"],
        ["deploy", "--local", "--only", "moon"],
        ["deploy", "--only", "moon"],
        ["status", "--only", "moon"],
        ["deploy", "--moon"],
        ["rebuild", "undo", "moon"],
        ["rebuild", "nats", "--undo"],
        ["report", "--output", "moon/report.html"],
        ["moon"],
        ["sandbox", "moon"],
        ["render"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_two(declared: PlatformTree, arguments: list[str]) -> None:
    ended = declared.isa(*arguments)

    assert ended.code == 2, ended.words
    assert any(word in ended.stderr for word in ("moon", "--output", "--undo"))
    assert not declared.exists(declared.namespace)


def test_what_changes_things_has_no_default_environment(declared: PlatformTree) -> None:
    for command in ("plan", "deploy", "status", "secrets"):
        ended = declared.isa(command, ENV="")
        assert ended.code == 2, ended.words
        assert "--env" in ended.stderr
    assert not declared.exists(declared.namespace)


def test_the_sandbox_tells_how_to_connect(sandbox: Sandbox, tree: PlatformTree) -> None:
    status = document(tree.isa("sandbox", "status", "--name", sandbox.name, "--json"), 0)

    assert status["up"]
    assert status["kubeconfig"] == str(sandbox.kubeconfig)
    assert {"etcd", "kube-apiserver", "kube-scheduler", "kwok", "object-store"} <= set(
        status["processes"]
    )


def test_a_sandbox_that_is_not_up_exits_with_one(tree: PlatformTree) -> None:
    ended = tree.isa("sandbox", "status", "--name", "never-was", "--json")

    assert ended.code == 1
    assert ended.report["up"] is False
