"""Which pods the accounts may make that may make any: asked of the real API server, with the accounts' own tokens.

Nothing is created: each attempt is a dry run, which passes quota, Pod Security and admission policies like a real one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.kube import Kube, Manifest, NotAllowed
from components.base import Scratch
from components.neo4j.editions import offline
from config.models import Settings
from operations.verify.scratch_pod import Request, pod_of
from sandbox.cluster import Sandbox

from .accounts import log_in
from .own_namespaces import ADMISSION, namespaces, own_settings, refused
from .platform_tree import until

pytestmark = pytest.mark.integration

# Not the cluster-wide rights, which are those of the platform that other tests deploy.
HARDENED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
    "runAsNonRoot": True,
    "runAsUser": 7474,
}
SMALL = {"cpu": "100m", "memory": "64Mi"}
Change = Callable[[Manifest], object]


def stateful_set(namespace: str) -> Manifest:
    """Neo4j's, as far as the helper's pod is made of it; it never runs."""
    server = {
        "name": "neo4j",
        "image": "registry.example.com/neo4j:5.26.30",
        "env": [{"name": "NEO4J_AUTH", "value": "none"}],
        "resources": {"requests": SMALL, "limits": SMALL},
        "securityContext": HARDENED,
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "neo4j-conf", "mountPath": "/config"},
        ],
    }
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    configured = [{"name": "neo4j-conf", "configMap": {"name": "neo4j-1-conf"}}]
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": offline.RELEASE, "namespace": namespace},
        "spec": {
            "replicas": 0,
            "serviceName": "neo4j",
            "selector": {"matchLabels": {"app": "isa-neo4j"}},
            "template": {
                "metadata": {"labels": {"app": "isa-neo4j"}},
                "spec": {"containers": [server], "volumes": configured},
            },
            "volumeClaimTemplates": [claim],
        },
    }


@dataclass
class Bounded:
    """A platform's namespaces with their accounts.

    Attributes:
        settings: of the platform.
        live: Neo4j's StatefulSet.
        backup: the cluster as isa-backup sees it.
        verify: as isa-verify does.
    """

    settings: Settings
    live: Manifest
    backup: Kube
    verify: Kube

    def scratch(self) -> Manifest:
        """A pod as a proof makes it."""
        manifest = cast(Any, SimpleNamespace(id="set-1", component="redis", plain_size=1))
        request = Request(self.settings, self.verify, (manifest,), {}, "")
        one = Scratch("", "neo4j-1", "neo4j", ("redis-server",), 6379, files={"redis.conf": ""})
        return pod_of(request, one, "proof-redis-1", self.live)


@pytest.fixture(scope="module")
def bounded(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bounded]:
    own = own_settings(sandbox, "b")
    neo4j = own.backup.neo4j.model_copy(update={"offline": True})
    backup = own.backup.model_copy(update={"neo4j": neo4j})
    settings = own.model_copy(update={"backup": backup})
    kube, directory = sandbox.kube(), tmp_path_factory.mktemp("accounts")
    name = settings.kubernetes.namespace

    def account(who: str) -> Kube:
        return Kube.connect(log_in(sandbox, directory, who, settings.kubernetes))

    with namespaces(kube, settings, ADMISSION):
        kube.create(stateful_set(name))
        live = kube.get("apps/v1", "StatefulSet", offline.RELEASE, name)
        assert live is not None
        yield Bounded(settings, live, account("isa-backup"), account("isa-verify"))


def changed(pod: Manifest, change: Change) -> Manifest:
    made = deepcopy(pod)
    change(made)
    return made


def in_spec(**values: Any) -> Change:
    return lambda pod: pod["spec"].update(values)


def in_metadata(**values: Any) -> Change:
    return lambda pod: pod["metadata"].update(values)


def in_container(**values: Any) -> Change:
    return lambda pod: pod["spec"]["containers"][0].update(values)


def with_volume(**source: Any) -> Change:
    return lambda pod: pod["spec"].setdefault("volumes", []).append({"name": "more", **source})


OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}
OTHER: dict[str, Any] = {"name": "other", "image": "neo4j:5", "resources": {"limits": SMALL}}
HELPERS = {
    "another name": (in_metadata(name="neo4j-1-1"), "no other"),
    "labels of MinIO": (in_metadata(labels={"app": "minio"}), "for an engine"),
    "an owner": (in_metadata(ownerReferences=[OWNER]), "no owner"),
    "a second network": (
        in_metadata(annotations={"k8s.v1.cni.cncf.io/networks": "host"}),
        "no owner",
    ),
    "a step before it": (
        in_spec(initContainers=[{**OTHER, "securityContext": HARDENED}]),
        "one container",
    ),
    "another image": (in_container(image="docker.io/evil:1"), "the image of the StatefulSet"),
    "another command": (in_container(command=["sh", "-c", "curl evil"]), "but wait"),
    "a hook": (
        in_container(lifecycle={"postStart": {"exec": {"command": ["sh", "-c", "curl evil"]}}}),
        "but wait",
    ),
    "a probe": (in_container(livenessProbe={"exec": {"command": ["sh"]}}), "but wait"),
    "every password": (
        in_container(envFrom=[{"secretRef": {"name": "postgresql-ha-auth"}}]),
        "no Secret",
    ),
    "a Secret as a volume": (with_volume(secret={"secretName": "minio-auth"}), "claims of neo4j-1"),
    "another engine's data": (
        with_volume(persistentVolumeClaim={"claimName": "data-postgresql-0"}),
        "claims of neo4j-1",
    ),
    "a token": (in_spec(automountServiceAccountToken=True), "isa-neo4j-dump"),
    "another account": (in_spec(serviceAccountName="default2"), ""),
    # of such a pod the API server has by then added the node's topology to its labels
    "a node of its choice": (in_spec(nodeName="node-1"), "isa-neo4j-dump"),
    "an engine's DNS name": (
        in_spec(hostname="neo4j-1-0", subdomain="neo4j"),
        "placed by the scheduler",
    ),
    "a priority over the platform": (
        in_spec(priorityClassName="system-node-critical"),
        "",
    ),
}


def test_the_helper_of_neo4js_dump_is_admitted(bounded: Bounded) -> None:
    helper = offline.pod_of(bounded.live)
    until("the policy knows its StatefulSet", lambda: not refused(bounded.backup, helper))
    assert refused(bounded.backup, helper) == ""


def test_where_neo4j_is_not_there_others_make_pods_and_the_helper_is_refused(
    bounded: Bounded, sandbox: Sandbox
) -> None:
    kube, helper = sandbox.kube(), offline.pod_of(bounded.live)
    kube.delete("apps/v1", "StatefulSet", offline.RELEASE, helper["metadata"]["namespace"])
    try:
        until("the policy misses it", lambda: "no params" in refused(bounded.backup, helper))
        assert "isa-neo4j-dump" in refused(bounded.backup, changed(helper, in_metadata(name="x")))
        assert refused(kube, changed(helper, in_metadata(name="x"))) == ""
    finally:
        kube.create(stateful_set(helper["metadata"]["namespace"]))
    until("the policy knows it again", lambda: not refused(bounded.backup, helper))


@pytest.mark.parametrize("what", HELPERS)
def test_the_account_that_may_make_the_helper_makes_no_other_pod(
    bounded: Bounded, what: str
) -> None:
    change, words = HELPERS[what]
    pod = changed(offline.pod_of(bounded.live), change)
    found = until("it is refused", lambda: refused(bounded.backup, pod))
    assert "HTTP 4" in found
    assert words in found, found


# What the namespace's Pod Security standard refuses: of production, and of scratch engines.
ON_THE_NODE = {
    "a directory of the node": with_volume(hostPath={"path": "/"}),
    "the node's network": in_spec(hostNetwork=True),
    "the node's processes": in_spec(hostPID=True),
    "a port of the node": in_container(ports=[{"containerPort": 80, "hostPort": 80}]),
    "privileges": in_container(securityContext={"privileged": True}),
    "root": in_container(securityContext={**HARDENED, "runAsNonRoot": False, "runAsUser": 0}),
    "a capability": in_container(
        securityContext={**HARDENED, "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}
    ),
    "every system call": in_container(
        securityContext={**HARDENED, "seccompProfile": {"type": "Unconfined"}}
    ),
}


@pytest.mark.parametrize("what", ON_THE_NODE)
def test_no_pod_of_these_accounts_gets_at_its_node(bounded: Bounded, what: str) -> None:
    for kube, pod in (
        (bounded.backup, offline.pod_of(bounded.live)),
        (bounded.verify, bounded.scratch()),
    ):
        found = refused(kube, changed(pod, ON_THE_NODE[what]))
        assert "HTTP 4" in found, found


def test_a_proofs_pod_is_admitted_within_the_quota_and_nowhere_else(bounded: Bounded) -> None:
    pod = bounded.scratch()
    assert refused(bounded.verify, pod) == ""
    large = {"limits": {"cpu": "100", "memory": "1Gi"}}
    assert "exceeded quota" in refused(bounded.verify, changed(pod, in_container(resources=large)))
    for namespace in (bounded.settings.kubernetes.namespace, "kube-system"):
        found = refused(bounded.verify, changed(pod, in_metadata(namespace=namespace)))
        assert "HTTP 403" in found
    with pytest.raises(NotAllowed):  # it reads no Secret, not even those that it made
        bounded.verify.list("v1", "Secret", bounded.settings.kubernetes.verify_namespace)


def test_the_account_that_stops_neo4j_scales_it_and_changes_nothing_else_of_it(
    bounded: Bounded,
) -> None:
    bounded.backup.scale(bounded.live, 0)
    with pytest.raises(NotAllowed):
        bounded.backup.patch(bounded.live, {"metadata": {"labels": {"x": "y"}}})
