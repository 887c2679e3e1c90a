from __future__ import annotations

import pytest

from cluster.dag import CycleError, Dag


def dag(**needs: list[str]) -> Dag:
    made = Dag()
    for node, needed in needs.items():
        made.add(node, needed)
    return made


def test_every_node_comes_after_its_needs_and_ties_keep_their_order() -> None:
    graph = dag(
        storage=[],
        namespace=["storage"],
        redis=["namespace"],
        postgresql=["namespace", "nats"],
        nats=[],
    )
    assert graph.sorted() == ["storage", "namespace", "redis", "nats", "postgresql"]


def test_a_cycle_is_named_in_full() -> None:
    graph = dag(a=[], b=["a", "d"], c=["b"], d=["c"])
    with pytest.raises(CycleError) as caught:
        graph.sorted()
    assert caught.value.ring[0] == caught.value.ring[-1]
    assert set(caught.value.ring) == {"b", "c", "d"}


def test_choosing_nodes_brings_what_they_need_and_nothing_else() -> None:
    graph = dag(storage=[], namespace=["storage"], redis=["namespace"], nats=["namespace"])
    assert graph.with_needs(["redis"]) == {"redis", "namespace", "storage"}
