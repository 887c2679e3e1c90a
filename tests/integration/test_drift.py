"""What others did to deployed objects, and what the cluster's own policies say of a change, on a real API server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from .platform_tree import PlatformTree, until

pytestmark = pytest.mark.integration

MORE_OBJECTS = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: nats-config, labels: {empty: null}}
data: {nats.conf: "max_payload: 1MB\\nport: 4222\\n", password.conf: {{ .Values.image | quote }}}
---
apiVersion: v1
kind: Service
metadata: {name: nats}
spec:
  selector: {app: nats}
  ports: [{name: client, port: 4222, nodePort: null}]
"""
ADMISSION = "admissionregistration.k8s.io/v1"


@pytest.fixture
def deployed(tree: PlatformTree) -> PlatformTree:
    """A release with a workload, a Service and a ConfigMap, deployed and unchanged."""
    (tree.directory / "chart" / "templates" / "more.yaml").write_text(MORE_OBJECTS)
    tree.declare("nats")
    assert tree.isa("deploy", "--local").code == 0
    plan = tree.isa("plan")
    assert plan.code == 0, plan.words
    return tree


@pytest.fixture
def policy(tree: PlatformTree) -> Iterator[None]:
    """No StatefulSet of this platform may ask for more than 20m, nor be without a note."""
    name = tree.namespace
    match = {
        "resourceRules": [
            {
                "apiGroups": ["apps"],
                "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE"],
                "resources": ["statefulsets"],
            }
        ],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
    }
    rule = {
        "expression": "has(object.metadata.annotations) && 'note' in object.metadata.annotations",
        "message": "every workload needs a note",
    }
    objects = [
        {
            "apiVersion": ADMISSION,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {"matchConstraints": match, "validations": [rule]},
        },
        {
            "apiVersion": ADMISSION,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        },
    ]
    yield from _applied(tree, objects)


@pytest.fixture
def webhook(tree: PlatformTree) -> Iterator[None]:
    """An admission webhook for this platform's StatefulSets, which is down."""
    rule = {
        "apiGroups": ["apps"],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["statefulsets"],
    }
    hook = {
        "name": "guard.example.org",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "timeoutSeconds": 2,
        "clientConfig": {"url": "https://127.0.0.1:1/guard"},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": tree.namespace}},
        "rules": [rule],
    }
    document = {
        "apiVersion": ADMISSION,
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": tree.namespace},
        "webhooks": [hook],
    }
    yield from _applied(tree, [document])


def _applied(tree: PlatformTree, objects: list[dict[str, Any]]) -> Iterator[None]:
    for manifest in objects:
        tree.kube.apply(manifest)
    yield
    for manifest in objects:
        tree.kube.delete(ADMISSION, manifest["kind"], manifest["metadata"]["name"])


def kubectl(tree: PlatformTree, *arguments: str) -> None:
    """Change something by hand."""
    program = str(tree.sandbox.binary("kubectl"))
    subprocess.run([program, "-n", tree.namespace, *arguments], env=tree.environ, check=True)


def refused(tree: PlatformTree, words: str) -> None:
    """Wait until the cluster refuses what it is going to refuse."""
    workload = tree.workload("nats")
    assert workload is not None

    def told() -> bool:
        change = json.dumps({"metadata": {"labels": {"try": "it"}}})
        program = str(tree.sandbox.binary("kubectl"))
        command = [program, "-n", tree.namespace, "patch", "sts", "nats", "--dry-run=server", "-p", change]  # fmt: skip
        return words in subprocess.run(command, env=tree.environ, capture_output=True, text=True).stderr  # fmt: skip

    until("the refusal", told)


def test_what_was_added_by_hand_is_shown_field_by_field_and_a_deploy_takes_it_back(
    deployed: PlatformTree,
) -> None:
    declared = deployed.workload("nats")
    container = {"spec": {"template": {"spec": {"containers": [{"name": "spy", "image": "x:1"}]}}}}
    kubectl(deployed, "set", "env", "sts/nats", "EXTRA=1")
    kubectl(deployed, "patch", "sts", "nats", "-p", json.dumps(container))
    kubectl(deployed, "patch", "svc", "nats", "-p", '{"spec":{"ports":[{"name":"x","port":81}]}}')
    kubectl(deployed, "patch", "svc", "nats", "-p", '{"spec":{"selector":{"more":"x"}}}')
    kubectl(deployed, "patch", "cm", "nats-config", "-p", '{"data":{"extra":"2"}}')

    plan = deployed.isa("plan", "--json")

    assert plan.code == 3, plan.words
    assert plan.node("nats")["action"] == "drifted"
    fields = {
        (difference["object"], field["path"]): field["manager"]
        for difference in plan.node("nats")["differences"]
        for field in difference["fields"]
    }
    pod = "spec.template.spec.containers"
    assert fields == {
        ("StatefulSet/nats", f"{pod}[engine].env"): "kubectl-set",
        ("StatefulSet/nats", f"{pod}[spy]"): "kubectl-patch",
        ("Service/nats", "spec.ports[x]"): "kubectl-patch",
        ("Service/nats", "spec.selector.more"): "",
        ("ConfigMap/nats-config", "data.extra"): "kubectl-patch",
    }
    ended = deployed.isa("deploy", "--local", "--json")
    assert ended.code == 0, ended.words
    assert ended.node("nats")["outcome"] == "upgraded"
    live = deployed.workload("nats")
    assert live is not None and declared is not None
    assert live["spec"] == declared["spec"]
    assert deployed.isa("plan").code == 0


def test_an_upgrade_takes_back_what_was_added_too_and_shows_both(deployed: PlatformTree) -> None:
    kubectl(deployed, "patch", "cm", "nats-config", "-p", '{"data":{"extra":"2"}}')
    deployed.declare("nats", cpu="20m")

    plan = deployed.isa("plan", "--json")

    assert plan.node("nats")["action"] == "upgrade"
    assert plan.node("nats")["reasons"] == [
        "nats: StatefulSet/nats: spec.template.spec.containers[engine].resources.requests.cpu "
        '"10m" → "20m"',
        'nats: ConfigMap/nats-config: data.extra "2" → (absent) (added by kubectl-patch)',
    ]
    assert deployed.isa("deploy", "--local").code == 0
    live = deployed.kube.get("v1", "ConfigMap", "nats-config", deployed.namespace)
    assert live is not None and "extra" not in live["data"]
    assert deployed.isa("plan").code == 0


def test_a_restart_and_a_sites_own_controller_are_no_drift(deployed: PlatformTree) -> None:
    kubectl(deployed, "rollout", "restart", "sts/nats")
    kubectl(deployed, "annotate", "svc", "nats", "note=x", "--field-manager=site-controller")
    until("the restart", lambda: deployed.isa("status").code == 0)

    named = {"DEPLOY__IGNORED_FIELD_MANAGERS": '["site-controller"]'}
    assert deployed.isa("plan", **named).code == 0
    plan = deployed.isa("plan", "--json")
    assert plan.node("nats")["reasons"] == [
        'nats: Service/nats: metadata.annotations.note "x" → (absent) (added by site-controller)'
    ]


def test_a_policy_that_refuses_blocks_a_change_with_its_own_words_and_shows_no_drift(
    deployed: PlatformTree, policy: None
) -> None:
    refused(deployed, "every workload needs a note")
    assert deployed.isa("plan").code == 0

    deployed.declare("nats", cpu="20m")
    plan = deployed.isa("plan", "--json")
    ended = deployed.isa("deploy", "--local")

    assert plan.code == 1
    check = next(c for c in plan.report["preflight"] if c["name"] == "change of StatefulSet/nats")
    assert "every workload needs a note" in check["hint"]
    assert check["critical"] and not check["ok"]
    assert ended.code == 1
    assert deployed.status("nats") == "deployed"
    assert len(deployed.history("nats")) == 1


def test_a_webhook_that_is_down_is_named_within_seconds(
    deployed: PlatformTree, webhook: None
) -> None:
    refused(deployed, "guard.example.org")
    deployed.declare("nats", cpu="20m")

    plan = deployed.isa("plan", "--json")

    assert plan.code == 1
    check = next(c for c in plan.report["preflight"] if c["name"] == "webhook guard.example.org")
    assert "connection refused" in check["hint"]
    assert len(deployed.history("nats")) == 1
