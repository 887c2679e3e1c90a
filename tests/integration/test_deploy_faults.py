"""What a deploy does when the world is not as it should be: it goes on where it can, and leaves nothing half-done."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox.cluster import Sandbox

from .platform_tree import NEVER_READY, PlatformTree, until


@pytest.fixture
def slow_pods(sandbox: Sandbox) -> Iterator[None]:
    """Pods that take so long that a fault certainly hits the wait for them."""
    sandbox.set_ready_delay(6, 7)
    yield
    sandbox.set_ready_delay(0.3, 1.3)


HELD_HELM = """#!/bin/sh
case "$*" in *upgrade*) ;; *) exec {real} "$@" ;; esac
touch {begun}
until [ -e {away} ]; do sleep 0.1; done
{real} "$@"
code=$?
echo $code >> {ended}
exit $code
"""


def live_pods(tree: PlatformTree, workload: str) -> list[dict[str, str]]:
    """Image, revision and uid of the live pods of a workload."""
    return [
        {
            "image": pod["spec"]["containers"][0]["image"],
            "revision": pod["metadata"]["labels"]["controller-revision-hash"],
            "uid": pod["metadata"]["uid"],
        }
        for pod in tree.kube.list("v1", "Pod", tree.namespace, f"app={workload}")
    ]


def claims(tree: PlatformTree) -> set[str]:
    found = tree.kube.list("v1", "PersistentVolumeClaim", tree.namespace)
    return {claim["metadata"]["name"] for claim in found if "deletionTimestamp" not in claim}


@contextmanager
def api_server_away(sandbox: Sandbox) -> Iterator[None]:
    """Stop the API server; afterwards its clients in the control plane are restarted, as leader election does.

    Their own back-off would cost the test a minute. KWOK is not: a new one waits for the old one's node leases.
    """
    sandbox.stop("kube-apiserver")
    try:
        yield
    finally:
        sandbox.start("kube-apiserver")
        for part in ("kube-scheduler", "kube-controller-manager"):
            sandbox.stop(part)
            sandbox.start(part)


def test_a_deploy_survives_an_api_server_that_is_away_for_twenty_seconds(
    tree: PlatformTree, sandbox: Sandbox, slow_pods: None
) -> None:
    tree.declare("nats", timeout=300)
    tree.declare("minio", timeout=300, wait=False)  # here our own gate waits, not helm
    tree.declare("qdrant", needs=("nats",))
    deploy = tree.start("deploy", "--local", "--json")
    until("helm waits for pods", lambda: tree.status("nats") == "pending-install")
    with api_server_away(sandbox):
        time.sleep(20)  # the fault itself: nothing to poll for
        assert deploy.poll() is None
    ended = tree.end_of(deploy)
    assert ended.code == 0, ended.words
    # a helm that gave up in the midst of it is started again, and completes what is there by an upgrade
    assert set(ended.outcomes().values()) <= {"installed", "upgraded"}
    assert {tree.status(name) for name in ("nats", "minio", "qdrant")} == {"deployed"}
    assert tree.isa("plan").code == 0


def test_a_helm_that_finds_no_api_server_is_started_again(
    tree: PlatformTree, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = sandbox.environ()["PATH"]
    begun, away, ended = (tmp_path / name for name in ("begun", "away", "ended"))
    helm = tmp_path / "programs" / "helm"
    helm.parent.mkdir()
    # it starts at once, and asks its first question when the API server is certainly away
    helm.write_text(
        HELD_HELM.format(real=shutil.which("helm", path=path), begun=begun, away=away, ended=ended)
    )
    helm.chmod(0o755)
    tree.settings["PATH"] = f"{helm.parent}:{path}"
    tree.declare("nats", timeout=300)
    deploy = tree.start("deploy", "--local")
    until("helm starts", begun.exists)
    with api_server_away(sandbox):
        away.touch()
        until("helm gave up", ended.exists)
        assert deploy.poll() is None
    assert ended.read_text().split()[0] != "0"
    done = tree.end_of(deploy)
    assert done.code == 0, done.words
    assert tree.status("nats") == "deployed"


def test_what_does_not_get_ready_is_removed_and_only_its_dependants_are_skipped(
    tree: PlatformTree,
) -> None:
    tree.declare("nats", timeout=5, annotations=NEVER_READY)
    tree.declare("qdrant", needs=("nats",))
    tree.declare("minio", needs=("qdrant",))
    tree.declare("redis")
    ended = tree.isa("deploy", "--local", "--json")
    assert ended.code == 1
    assert ended.report["state"] == "failed"
    assert ended.outcomes() == {
        "storage-classes": "installed",
        "namespace": "installed",
        "nats": "failed",
        "qdrant": "skipped",
        "minio": "skipped",
        "redis": "installed",
    }
    assert ended.node("qdrant")["reason"] == "needs nats"
    assert ended.node("minio")["reason"] == "needs nats"
    assert tree.history("nats") == []
    assert tree.workload("nats") is None
    assert "data-nats-0" in claims(tree)
    assert tree.status("redis") == "deployed"


def test_an_upgrade_that_does_not_get_ready_goes_back_to_the_revision_before(
    tree: PlatformTree,
) -> None:
    tree.declare("nats", replicas=2)
    assert tree.isa("deploy", "--local").code == 0
    before = {pod["revision"] for pod in live_pods(tree, "nats")}
    tree.declare("nats", replicas=2, timeout=6, annotations=NEVER_READY)
    ended = tree.isa("deploy", "--local", "--json")
    assert ended.code == 1
    assert ended.node("nats")["outcome"] == "failed"
    assert [record.status for record in tree.history("nats")] == [
        "superseded",
        "failed",
        "deployed",
    ]
    assert {pod["revision"] for pod in live_pods(tree, "nats")} == before
    assert json.loads(tree.isa("status", "--json").stdout)["ready"]


def test_a_gate_that_stays_shut_undoes_what_helm_did_not_wait_for(tree: PlatformTree) -> None:
    tree.declare("nats", wait=False, annotations=NEVER_READY)
    ended = tree.isa("deploy", "--local", "--json", DEPLOY__GATE_TIMEOUT_SECONDS="4")
    assert ended.code == 1
    reason = ended.node("nats")["reason"]
    assert "nats is not ready after 4 s" in reason
    assert "was uninstalled again, its volumes are kept" in reason
    assert tree.history("nats") == []
    assert claims(tree) == {"data-nats-0"}


def test_a_gate_that_shuts_after_an_upgrade_brings_the_revision_before_back(
    tree: PlatformTree,
) -> None:
    tree.declare("nats", wait=False)
    assert tree.isa("deploy", "--local").code == 0
    tree.declare("nats", wait=False, annotations=NEVER_READY)
    ended = tree.isa("deploy", "--local", "--json", DEPLOY__GATE_TIMEOUT_SECONDS="4")
    assert ended.code == 1
    assert "was rolled back to revision 1" in ended.node("nats")["reason"]
    assert tree.status("nats") == "deployed"
    until(
        "ready again", lambda: json.loads(tree.isa("status", "--json").stdout)["ready"], seconds=30
    )


@pytest.mark.parametrize("wait", [True, False], ids=["helm waits", "the gate waits"])
def test_a_new_engine_version_that_does_not_get_ready_stays_and_the_ways_on_are_named(
    tree: PlatformTree, wait: bool
) -> None:
    tree.declare("nats", wait=wait, image="sandbox.local/engine:1.0")
    assert tree.isa("deploy", "--local").code == 0
    new = "sandbox.local/engine:2.0"
    tree.declare("nats", wait=wait, image=new, timeout=4, annotations=NEVER_READY)
    ended = tree.isa("deploy", "--local", "--json", DEPLOY__GATE_TIMEOUT_SECONDS="4")
    assert ended.code == 1
    reason = ended.node("nats")["reason"]
    assert "changes the engine's version and was not rolled back" in reason
    assert "revision 1 (tiny-1.0.0)" in reason
    assert "deploy again" in reason
    assert "restore a verified backup" in reason
    assert "helm rollback nats" in reason
    assert len(tree.history("nats")) == 2
    assert {pod["image"] for pod in live_pods(tree, "nats")} == {new}


def test_after_a_failed_engine_version_the_mended_one_is_deployed(tree: PlatformTree) -> None:
    tree.declare("nats", image="sandbox.local/engine:1.0")
    assert tree.isa("deploy", "--local").code == 0
    new = "sandbox.local/engine:2.0"
    tree.declare("nats", image=new, timeout=4, annotations=NEVER_READY)
    assert tree.isa("deploy", "--local").code == 1
    tree.declare("nats", image=new)
    ended = tree.isa("deploy", "--local", "--json")
    assert ended.code == 0, ended.words
    assert ended.node("nats")["outcome"] == "upgraded"
    assert tree.status("nats") == "deployed"
    assert {pod["image"] for pod in live_pods(tree, "nats")} == {new}


def test_a_second_try_that_fails_too_does_not_bring_the_old_engine_back(tree: PlatformTree) -> None:
    tree.declare("nats", image="sandbox.local/engine:1.0")
    assert tree.isa("deploy", "--local").code == 0
    new = "sandbox.local/engine:2.0"
    for cpu in ("20m", "30m"):
        tree.declare("nats", image=new, cpu=cpu, timeout=4, annotations=NEVER_READY)
        ended = tree.isa("deploy", "--local", "--json")
        assert ended.code == 1
        assert "was not rolled back" in ended.node("nats")["reason"]
        assert "revision 1 (tiny-1.0.0)" in ended.node("nats")["reason"]
    assert {pod["image"] for pod in live_pods(tree, "nats")} == {new}
    assert [record.status for record in tree.history("nats")] == ["deployed", "failed", "failed"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"spec": {"replicas": 2}}, "spec.replicas 2 → 1"),
        (
            {
                "spec": {
                    "template": {
                        "spec": {
                            "containers": [
                                {
                                    "name": "engine",
                                    "image": "sandbox.local/engine:1.0",
                                    "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
                                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                                }
                            ]
                        }
                    }
                }
            },
            'spec.template.spec.containers[engine].resources.requests.cpu "20m" → "10m"',
        ),
    ],
    ids=["scaled", "other resources"],
)
def test_an_object_edited_by_hand_is_shown_as_drift_and_put_right(
    tree: PlatformTree, change: dict[str, object], told: str
) -> None:
    tree.declare("nats")
    assert tree.isa("plan").code == 3
    assert tree.isa("deploy", "--local").code == 0
    assert tree.isa("plan").code == 0
    declared = tree.workload("nats")
    assert declared is not None
    tree.kube.patch(declared, change)
    plan = tree.isa("plan", "--json")
    assert plan.code == 3, plan.words
    assert plan.node("nats")["action"] == "drifted"
    assert plan.node("nats")["reasons"] == [f"nats: StatefulSet/nats: {told}"]
    ended = tree.isa("deploy", "--local", "--json")
    assert ended.code == 0, ended.words
    assert ended.node("nats")["outcome"] == "upgraded"
    mended = tree.workload("nats")
    assert mended is not None
    assert mended["spec"] == declared["spec"]
    assert tree.isa("plan").code == 0


def test_settings_that_pods_read_at_their_start_are_in_force_after_a_deploy(
    tree: PlatformTree,
) -> None:
    tree.declare("nats", replicas=2, environment={"LEVEL": "info"})
    assert tree.isa("deploy", "--local").code == 0
    before = {pod["uid"] for pod in live_pods(tree, "nats")}
    tree.declare("nats", replicas=2, environment={"LEVEL": "debug"})
    plan = tree.isa("plan", "--json")
    restart = "StatefulSet/nats: its pods restart one after the other to read ConfigMap/nats-env"
    assert any(restart in reason for reason in plan.node("nats")["reasons"]), plan.words
    ended = tree.isa("deploy", "--local", "--json")
    assert ended.node("nats")["outcome"] == "upgraded", ended.words
    after = {pod["uid"] for pod in live_pods(tree, "nats")}
    assert len(after) == 2
    assert not after & before
    again = tree.isa("plan", "--json")
    assert again.code == 0, again.words  # a restart is no drift, and nothing is due any more


def test_a_plan_that_is_blocked_exits_with_one(tree: PlatformTree) -> None:
    tree.declare("nats", cpu="17")
    plan = tree.isa("plan", "--json")
    assert plan.code == 1
    assert plan.report["blocked"] is True
