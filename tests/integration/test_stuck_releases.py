"""No release stays stuck: what a killed helm left is freed once its holder is gone, and never before."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from errors import PermanentError

from .platform_tree import NEVER_READY, PlatformTree, until

IMAGE = "sandbox.local/engine:1.0"
STRANGER = "elsewhere/4711/1"  # a process of another machine: nobody here can tell whether it lives


def kill_helm_midway(tree: PlatformTree, component: str, status: str, image: str = IMAGE) -> None:
    """Run helm by hand on what never gets ready, and kill it while the release is pending."""
    tree.declare(component, annotations=NEVER_READY, image=image)
    assert tree.isa("deploy", "--local", "--only", "namespace").code == 0
    values = str(tree.directory / f"{component}.yaml")
    chart = str(tree.directory / "chart")
    helm = tree.helm("upgrade", "--install", component, chart, "--wait", "--values", values)
    until(status, lambda: tree.status(component) == status)
    helm.kill()
    helm.communicate()
    assert tree.status(component) == status


def write_lease(tree: PlatformTree, name: str, *, holder: str = "", operation: str = "") -> None:
    """Write a Lease as a run leaves it that held it and was doing something."""
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    tree.kube.apply(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": name,
                "namespace": tree.control,
                "annotations": {
                    "isa-cloud.io/operation": operation,
                    "isa-cloud.io/purpose": "rebuild nats",
                },
            },
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": 3600,
                "acquireTime": stamp,
                "renewTime": stamp,
            },
        },
        manager="test",
    )


@contextmanager
def no_record_is_changed(tree: PlatformTree) -> Iterator[None]:
    """Have the API server refuse every change of helm's records: what an API server that is away does to helm."""
    name = f"{tree.namespace}-records"
    version = "admissionregistration.k8s.io/v1"
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "resources": ["secrets"],
        "operations": ["UPDATE"],
    }
    where = {"matchLabels": {"kubernetes.io/metadata.name": tree.namespace}}
    refusal = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule], "namespaceSelector": where},
        "validations": [{"expression": "!object.metadata.name.startsWith('sh.helm.')"}],
    }
    binding = {"policyName": name, "validationActions": ["Deny"]}
    kinds = {"ValidatingAdmissionPolicy": refusal, "ValidatingAdmissionPolicyBinding": binding}
    record = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "sh.helm.probe", "namespace": tree.namespace},
    }

    def refused() -> bool:
        try:
            tree.kube.apply({**record, "stringData": {"asked": str(time.monotonic())}})
        except PermanentError:
            return True
        return False

    try:
        for kind, spec in kinds.items():
            tree.kube.apply(
                {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}
            )
        until("the API server has heard of it", refused)
        yield
    finally:
        for kind in kinds:
            tree.kube.delete(version, kind, name)
        until("the API server has forgotten it", lambda: not refused())


def assert_whole(tree: PlatformTree, component: str) -> None:
    """The release is deployed as declared, and no Lease is held."""
    assert tree.status(component) == "deployed"
    assert tree.holder(f"isa-{component}") == ""
    assert tree.holder("isa-deploy") == ""
    assert tree.isa("plan").code == 0


def test_an_install_that_our_killed_helm_left_is_completed(tree: PlatformTree) -> None:
    kill_helm_midway(tree, "nats", "pending-install")
    write_lease(tree, "isa-nats", operation="helm nats")
    tree.declare("nats", timeout=3600)  # not a matter of age
    plan = tree.isa("plan", "--json")
    assert plan.code == 3
    assert plan.node("nats")["action"] == "recover"
    assert "pending-install since" in plan.node("nats")["reasons"][0]
    ended = tree.isa("deploy", "--local", "--json")
    assert ended.code == 0, ended.words
    assert_whole(tree, "nats")


def test_an_upgrade_that_our_killed_helm_left_is_taken_over(tree: PlatformTree) -> None:
    tree.declare("nats", replicas=2)
    assert tree.isa("deploy", "--local").code == 0
    kill_helm_midway(tree, "nats", "pending-upgrade")
    write_lease(tree, "isa-nats", operation="helm nats")
    tree.declare("nats", replicas=2, timeout=3600)
    ended = tree.isa("deploy", "--local", "--json")
    assert ended.code == 0, ended.words
    assert ended.node("nats")["outcome"] == "upgraded"
    assert_whole(tree, "nats")


def test_a_killed_change_of_engine_version_is_completed_and_never_taken_back(
    tree: PlatformTree,
) -> None:
    tree.declare("nats", image=IMAGE)
    assert tree.isa("deploy", "--local").code == 0
    kill_helm_midway(tree, "nats", "pending-upgrade", image="sandbox.local/engine:2.0")
    write_lease(tree, "isa-nats", operation="helm nats")
    tree.declare("nats", image="sandbox.local/engine:2.0")
    ended = tree.isa("deploy", "--local", "--json")
    assert ended.code == 0, ended.words
    first, *later = tree.history("nats")
    assert "engine:1.0" in first.manifest
    assert all("engine:2.0" in record.manifest for record in later)
    assert_whole(tree, "nats")


def test_a_pending_release_of_another_tool_is_waited_for_until_its_time_is_over(
    tree: PlatformTree,
) -> None:
    kill_helm_midway(tree, "nats", "pending-install")
    tree.declare("nats", timeout=3600)
    ended = tree.isa("deploy", "--local", "--json", DEPLOY__ATTEMPTS="1")
    assert ended.code == 1
    reason = ended.node("nats")["reason"]
    assert "release nats has been pending-install for" in reason
    assert "isa did not start that" in reason
    assert [record.status for record in tree.history("nats")] == ["pending-install"]
    tree.declare("nats", timeout=8)  # helm itself would have ended by then
    ended = tree.isa("deploy", "--local", "--json")
    assert ended.code == 0, ended.words
    assert_whole(tree, "nats")


def test_a_pending_release_is_not_touched_while_the_holder_of_its_lease_lives(
    tree: PlatformTree,
) -> None:
    kill_helm_midway(tree, "nats", "pending-install")
    write_lease(tree, "isa-nats", holder=STRANGER, operation="helm nats")
    before = tree.history("nats")
    tree.declare("nats", timeout=1)  # old enough, but held
    ended = tree.isa("deploy", "--local", "--json", DEPLOY__ATTEMPTS="2", DEPLOY__LEASE_SECONDS="3")
    assert ended.code == 1
    reason = ended.node("nats")["reason"]
    assert f"lease isa-nats is held by {STRANGER} (rebuild nats)" in reason
    assert tree.history("nats") == before
    assert tree.holder("isa-nats") == STRANGER


def test_a_killed_deploy_leaves_no_helm_and_the_next_one_completes_it(tree: PlatformTree) -> None:
    tree.declare("nats", annotations=NEVER_READY)
    deploy = tree.start("deploy", "--local")
    until("helm is at work", lambda: tree.helms() and tree.status("nats") == "pending-install")
    deploy.kill()
    deploy.communicate()
    assert str(deploy.pid) in tree.holder("isa-deploy")
    until("helm ended with its parent", lambda: not tree.helms(), seconds=15)
    tree.declare("nats")
    began = time.monotonic()
    ended = tree.isa("deploy", "--local", "--json")
    assert ended.code == 0, ended.words
    assert time.monotonic() - began < 25  # less than a Lease lasts: the dead are not waited for
    assert_whole(tree, "nats")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_cancelled_deploy_ends_soon_and_leaves_nothing_half_done(
    tree: PlatformTree, number: signal.Signals
) -> None:
    tree.declare("nats", annotations=NEVER_READY)
    tree.declare("qdrant", needs=("nats",))
    deploy = tree.start("deploy", "--local")
    until("helm is at work", lambda: tree.helms() and tree.status("nats") == "pending-install")
    asked = time.monotonic()
    os.kill(deploy.pid, number)
    ended = tree.end_of(deploy, seconds=60)
    assert time.monotonic() - asked < 30
    assert ended.code == 130, ended.words
    assert "stopped" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert tree.helms() == []
    assert not tree.status("nats").startswith("pending")
    assert tree.history("qdrant") == []
    assert tree.holder("isa-deploy") == tree.holder("isa-nats") == ""
    tree.declare("nats")
    ended = tree.isa("deploy", "--local", "--json")
    assert ended.code == 0, ended.words
    assert_whole(tree, "nats")


def test_a_second_deploy_is_refused_with_the_name_of_the_first(tree: PlatformTree) -> None:
    tree.declare("nats", annotations=NEVER_READY)
    first = tree.start("deploy", "--local")
    until("helm is at work", lambda: tree.helms() and tree.status("nats") == "pending-install")
    second = tree.isa("deploy", "--local")
    assert second.code == 1
    assert "lease isa-deploy is held by" in second.stderr
    assert f"/{first.pid}/" in second.stderr
    assert tree.helms(), "the first one goes on"
    assert [record.status for record in tree.history("nats")] == ["pending-install"]


def test_an_install_that_helm_could_not_write_down_is_completed(tree: PlatformTree) -> None:
    tree.declare("nats", timeout=3600)
    assert tree.isa("deploy", "--local", "--only", "namespace").code == 0
    with no_record_is_changed(tree):
        deploy = tree.start("deploy", "--local", "--json")
        until("helm starts", lambda: tree.helms("upgrade"))
        until("helm has ended", lambda: not tree.helms("upgrade"))
        assert tree.status("nats") == "pending-install"
    ended = tree.end_of(deploy)
    assert ended.code == 0, ended.words
    assert ended.node("nats")["outcome"] == "upgraded"  # by the second attempt
    assert_whole(tree, "nats")
