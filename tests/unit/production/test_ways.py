"""The ways that real nodes try are those of the policies as Kubernetes reads them."""

from __future__ import annotations

from typing import Any

import pytest

from config.loading import load
from operations.environment.render import render_manifest
from tests.soak.nodes.policies import FACTS
from tests.soak.nodes.ways import ENDS, SITE, WAYS

from .test_network import End, Network


@pytest.fixture(scope="module")
def network() -> Network:
    settings = load("sandbox", environ=FACTS)
    manifests: list[dict[str, Any]] = render_manifest(
        settings.platform.namespace_manifest, settings
    )
    for name, labels in SITE.items():
        manifests.append({"kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    manifests.append({"kind": "Namespace", "metadata": {"name": "kube-system"}})
    return Network(manifests)


@pytest.mark.parametrize("is_open", [True, False], ids=["open", "closed"])
def test_each_way_that_real_nodes_try_is_what_the_policies_say(
    network: Network, is_open: bool
) -> None:
    def end(name: str) -> End:
        return End(ENDS[name].namespace, ENDS[name].labels)

    wrong = [
        str(way)
        for way in WAYS
        if way.is_open is is_open
        and network.connects(end(way.source), end(way.target), way.port) is not is_open
    ]
    assert wrong == []


def test_a_closed_way_leads_to_a_port_that_somebody_else_reaches() -> None:
    reached = {(way.target, way.port) for way in WAYS if way.is_open}
    assert [str(way) for way in WAYS if (way.target, way.port) not in reached] == []


def test_every_way_is_tried_once_and_to_a_port_that_is_listened_on() -> None:
    assert len({(way.source, way.target, way.port) for way in WAYS}) == len(WAYS)
    assert [str(way) for way in WAYS if way.port not in ENDS[way.target].listens] == []
