"""Who reaches whom, by the network policies of the whole tree: of scratch engines every way in and out is tried.

The policies are read as Kubernetes reads them (https://kubernetes.io/docs/concepts/services-networking/network-policies/);
whether a cluster's network enforces them is that network's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from archive.backup.manifest import Manifest as Set
from components import SETS
from components.base import Scratch
from config.models import Settings
from operations.verify.scratch_pod import Request, pod_of

from .conftest import ROOT

PRODUCTION, CONTROL, VERIFY = "isa-cloud-production", "isa-cloud-control", "isa-cloud-verify"
ENGINES = [name for name in SETS if name != "platform"]
WORKERS = {"isa-verify-worker", "isa-restore-worker", "isa-rebuild-worker"}
PASSWORD = "p"


@dataclass(frozen=True)
class End:
    """One end of a connection.

    Attributes:
        namespace: it lives there; "" for an address outside the cluster.
        labels: of the pod.
    """

    namespace: str
    labels: Mapping[str, str]


OUTSIDE = End("", {})


def artefact(form: str, name: str, unit: str) -> Any:
    return SimpleNamespace(format=form, name=f"{name}.zst.age", unit=unit)


# What each engine's scratch engines are made from, as far as that goes.
ARTEFACTS = {
    "postgresql": [artefact("tar", "base.tar", "server")],
    "redis": [artefact("RDB", "shard-0", "shard 0")],
    "nats": [artefact("nats stream backup", "nats/s/stream.tar.s2", "stream nats/s")],
    "neo4j": [artefact("neo4j-admin database dump", "neo4j.dump", "database neo4j")],
}


def scratches(component: str, settings: Settings) -> tuple[Scratch, ...]:
    manifest = cast(
        Set,
        SimpleNamespace(
            id="set-1", component=component, artefacts=ARTEFACTS.get(component, []),
            topology={"timeline": 1, "streams": {}},
            plain_size=1, fingerprint=(), needs=(),
            engine=SimpleNamespace(version="17.2"),
            consistency=[SimpleNamespace(unit="all databases", point="LSN 0/1000000")],
        ),
    )  # fmt: skip
    return SETS[component].restore.scratch(settings, manifest, PASSWORD)


@pytest.fixture
def pods(settings: Settings) -> dict[str, list[tuple[Scratch, End]]]:
    """Component → its scratch engines, with the labels of their pods."""
    found: dict[str, list[tuple[Scratch, End]]] = {}
    for component in ENGINES:
        for one in scratches(component, settings):
            manifest = cast(Set, SimpleNamespace(id="set-1", component=component, plain_size=1))
            request = Request(_with_image(settings), cast(Any, None), (manifest,), {}, "")
            server = {"name": one.container, "image": "x:1"}
            release = {"spec": {"template": {"spec": {"containers": [server]}}}}
            made = pod_of(request, one, "proof", release)["metadata"]
            found.setdefault(component, []).append((one, End(made["namespace"], made["labels"])))
    return found


def _with_image(settings: Settings) -> Settings:
    image = SimpleNamespace(reference="worker:1")
    return settings.model_copy(
        update={"verify": settings.verify.model_copy(update={"image": image})}
    )


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches; an empty one matches all."""
    for one in selector.get("matchExpressions", ()):
        has, values = labels.get(one["key"]), one.get("values", ())
        if not {"In": has in values, "Exists": has is not None}[one["operator"]]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


class Network:
    """The policies of a tree."""

    def __init__(self, manifests: list[dict[str, Any]]) -> None:
        self.policies = [m for m in manifests if m["kind"] == "NetworkPolicy"]
        self.namespaces = {
            m["metadata"]["name"]: {
                **m["metadata"].get("labels", {}),
                "kubernetes.io/metadata.name": m["metadata"]["name"],
            }
            for m in manifests
            if m["kind"] == "Namespace"
        }

    def connects(self, source: End, target: End, port: int) -> bool:
        return self._allowed(source, target, port, "egress", "to") and self._allowed(
            target, source, port, "ingress", "from"
        )

    def _allowed(self, at: End, peer: End, port: int, way: str, key: str) -> bool:
        if not at.namespace:
            return True
        own = list(self._of(at, way.capitalize()))
        rules = [rule for policy in own for rule in policy["spec"].get(way, ())]
        return not own or any(self._fits(at, rule, key, peer, port) for rule in rules)

    def _of(self, at: End, kind: str) -> Iterator[dict[str, Any]]:
        for policy in self.policies:
            there = policy["metadata"]["namespace"] == at.namespace
            spec = policy["spec"]
            if there and kind in spec["policyTypes"] and selects(spec["podSelector"], at.labels):
                yield policy

    def _fits(self, at: End, rule: Mapping[str, Any], key: str, peer: End, port: int) -> bool:
        ports, peers = rule.get("ports"), rule.get(key)
        if ports is not None and port not in [entry["port"] for entry in ports]:
            return False
        return peers is None or any(self._is(at, one, peer) for one in peers)

    def _is(self, at: End, one: Mapping[str, Any], peer: End) -> bool:
        if "ipBlock" in one or not peer.namespace:
            return False
        where = self.namespaces.get(peer.namespace, {})
        in_namespace = (
            selects(one["namespaceSelector"], where)
            if "namespaceSelector" in one
            else peer.namespace == at.namespace
        )
        return in_namespace and selects(one.get("podSelector", {}), peer.labels)


@pytest.fixture
def network(manifests: list[dict[str, Any]]) -> Network:
    return Network(manifests)


def workers() -> dict[str, End]:
    """The pods of worker.yaml, by their label: dispatchers (Deployments) and runs (PodTemplates)."""
    documents = yaml.safe_load_all((ROOT / "deployments/worker/worker.yaml").read_text())
    found = [
        End(one["metadata"]["namespace"], one.get("spec", one)["template"]["metadata"]["labels"])
        for one in documents
    ]
    return {end.labels["app.kubernetes.io/name"]: end for end in found}


# Every port that some engine listens on, and those of DNS, the API server and mail.
def every_port(settings: Settings) -> set[int]:
    return {
        25, 53, 80, 443, 1883, 4222, 4370, 5000, 5432, 6000, 6222, 6333, 6334, 6335, 6362, 6379, 6443, 7000, 7474, 7687,
        8083, 8222, 9000, 9001, 16379, 18083, settings.storage.object.port,
    }  # fmt: skip


@pytest.mark.parametrize("component", ENGINES)
def test_a_scratch_engine_is_asked_by_its_makers_on_its_own_port_and_by_nobody_else(
    component: str, pods: dict[str, list[tuple[Scratch, End]]], network: Network, settings: Settings
) -> None:
    makers = {name: end for name, end in workers().items() if name in WORKERS}
    assert set(makers) == WORKERS
    strangers = {
        **{name: end for name, end in workers().items() if name not in WORKERS},
        "Prefect's server": End(CONTROL, {"app.kubernetes.io/name": "prefect-server"}),
        "another scratch engine": End(VERIFY, {"isa-cloud.io/scratch": "redis"}),
        "one that claims to be a worker": End(
            VERIFY, {"app.kubernetes.io/name": "isa-verify-worker"}
        ),
        "a client": End(PRODUCTION, {"isa-cloud.io/client": "true"}),
        "somewhere else": End("default", {}),
        "outside": OUTSIDE,
    }
    for scratch, pod in pods[component]:
        for name, maker in makers.items():
            assert network.connects(maker, pod, scratch.port), (name, scratch.port)
        for name, stranger in strangers.items():
            for port in every_port(settings):
                assert not network.connects(stranger, pod, port), (name, port)
        for port in (6335, 4370, 9001, 16379, 7474):  # takes orders, often without a password
            assert not network.connects(makers["isa-verify-worker"], pod, port), port


@pytest.mark.parametrize("component", ENGINES)
def test_a_scratch_engine_reaches_no_other_pod_and_the_store_only_where_it_fetches_its_set(
    component: str, pods: dict[str, list[tuple[Scratch, End]]], network: Network,
    pod_labels: list[dict[str, str]], settings: Settings,
) -> None:  # fmt: skip
    live = [End(PRODUCTION, labels) for labels in pod_labels]
    control = [*workers().values(), End(CONTROL, {})]
    others = [pod for found in pods.values() for _, pod in found]
    for scratch, pod in pods[component]:
        for target in (*live, *control, *others):
            for port in every_port(settings):
                assert not network.connects(pod, target, port), (target, port)
        reached = {port for port in every_port(settings) if network.connects(pod, OUTSIDE, port)}
        assert reached == ({settings.storage.object.port} if scratch.placed else set())


def test_engines_that_can_call_out_fetch_nothing_and_so_reach_nothing(
    pods: dict[str, list[tuple[Scratch, End]]],
) -> None:
    fetching = {name for name, found in pods.items() if any(one.placed for one, _ in found)}
    assert fetching == {"postgresql", "redis", "neo4j"}


def test_these_tests_see_an_open_network(manifests: list[dict[str, Any]]) -> None:
    pod = End(VERIFY, {"isa-cloud.io/scratch": "emqx"})
    closed = [m for m in manifests if m["metadata"]["name"] != "default-deny"]
    without = [m for m in closed if m["metadata"]["name"] != "verify"]
    assert Network(without).connects(pod, OUTSIDE, 443)
    assert Network(without).connects(End("default", {}), pod, 4370)
