"""The double of Qdrant loses nothing that it has acknowledged, whichever of its peers are killed."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from .qdrant_cluster import EVERYWHERE, PLAIN, Cluster, by_shard, points, running


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running(tmp_path, 3) as made:
        yield made


class Writer:
    """Upserts point after point through one peer, and remembers which were acknowledged."""

    def __init__(self, cluster: Cluster, node: int, first: int) -> None:
        self.acknowledged: set[int] = set()
        self._cluster, self._node, self._next = cluster, node, first
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            body = points([self._next])
            try:
                said = self._cluster.ask(
                    self._node, "PUT", "/collections/docs/points?wait=true", json=body
                )
                if said.status_code == 200:
                    self.acknowledged.add(self._next)
            except httpx.HTTPError:
                time.sleep(0.05)
            self._next += 1


# ---------------------------------------------------------------------- changes of the cluster's state
def test_collections_created_at_once_on_different_peers_are_all_there(cluster: Cluster) -> None:
    def create(n: int, over: int) -> None:
        cluster.json(n % over, "PUT", f"/collections/c{n}", {"vectors": PLAIN, "shard_number": 1})

    def names(node: int) -> set[str]:
        found = cluster.json(node, "GET", "/collections")["collections"]
        return {entry["name"] for entry in found}

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: create(n, 3), range(24)))
        for node in range(3):
            assert names(node) == {f"c{n}" for n in range(24)}
        cluster.kill(2)
        list(pool.map(lambda n: create(n, 2), range(24, 40)))
    wanted = {f"c{n}" for n in range(40)}
    assert names(0) == names(1) == wanted
    cluster.start(2)
    cluster.until(lambda: names(2) == wanted)
    cluster.kill(0, 1)
    cluster.start(0)
    cluster.start(1)
    cluster.until(lambda: all(names(node) == wanted for node in range(3)))


def test_of_creations_of_one_name_at_once_one_succeeds(cluster: Cluster) -> None:
    def create(node: int) -> int:
        return cluster.ask(node, "PUT", "/collections/docs", json={"vectors": PLAIN}).status_code

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(create, range(3))) == [200, 409, 409]


def test_without_a_majority_nothing_is_created(cluster: Cluster) -> None:
    cluster.kill(1, 2)
    refused = cluster.ask(0, "PUT", "/collections/docs", json={"vectors": PLAIN})
    assert refused.status_code == 500
    assert "consensus" in refused.json()["status"]["error"]
    assert cluster.json(0, "GET", "/collections")["collections"] == []


def test_a_collection_made_anew_has_nothing_of_the_old_one_on_a_peer_that_was_away(
    cluster: Cluster,
) -> None:
    cluster.json(0, "PUT", "/collections/docs", EVERYWHERE)
    cluster.json(0, "PUT", "/collections/docs/points?wait=true", points(list(range(60))))
    cluster.kill(2)
    cluster.json(0, "DELETE", "/collections/docs")
    cluster.json(0, "PUT", "/collections/docs", EVERYWHERE)
    cluster.start(2)
    cluster.until(cluster.whole)
    assert cluster.counts(2) == {0: 0, 1: 0, 2: 0}
    cluster.json(2, "PUT", "/collections/docs/points?wait=true", points([1, 2, 3]))
    cluster.until(cluster.active)
    assert [cluster.counts(n) for n in range(3)] == [by_shard({1, 2, 3})] * 3


# ---------------------------------------------------------------------- writes
def test_a_replica_that_comes_back_has_what_was_written_meanwhile(cluster: Cluster) -> None:
    cluster.json(0, "PUT", "/collections/docs", EVERYWHERE)
    ids = list(range(8000))
    for start in range(0, len(ids), 2000):
        body = points(ids[start : start + 2000])
        cluster.json(0, "PUT", "/collections/docs/points?wait=true", body)
    with Writer(cluster, 0, 10_000) as one, Writer(cluster, 1, 20_000) as other:
        for _ in range(3):
            cluster.kill(2)
            time.sleep(0.5)
            cluster.start(2)
            cluster.until(cluster.whole)
            cluster.until(cluster.active)
    written = one.acknowledged | other.acknowledged
    assert len(written) > 50
    everything = by_shard(written | set(ids))
    cluster.until(cluster.active)
    for node in range(3):
        missing = (written | set(ids)) - set(cluster.ids(node))
        assert not missing, f"peer {node} lacks {sorted(missing)[:5]}"
        # a write that was not acknowledged may have arrived too, but on all alike
        assert cluster.counts(node) == cluster.counts(0)
        assert all(cluster.counts(node)[s] >= n for s, n in everything.items())


def test_killing_whichever_peer_loses_no_acknowledged_write(cluster: Cluster) -> None:
    cluster.json(0, "PUT", "/collections/docs", EVERYWHERE | {"replication_factor": 2})
    with Writer(cluster, 1, 0) as one, Writer(cluster, 2, 50_000) as other:
        for node in (0, 1, 2):
            time.sleep(0.5)
            cluster.kill(node)
            time.sleep(1)
            cluster.start(node)
            cluster.until(cluster.whole)
            cluster.until(cluster.active)
    written = one.acknowledged | other.acknowledged
    assert len(written) > 50
    cluster.until(cluster.active)
    pages = [
        cluster.json(
            n, "POST", "/collections/docs/points/scroll", {"limit": 99_999, "with_vector": True}
        )["points"]
        for n in range(3)
    ]
    assert pages[0] == pages[1] == pages[2]
    assert not written - {p["id"] for p in pages[0]}


def test_concurrent_writes_of_one_point_leave_the_same_on_all_replicas(cluster: Cluster) -> None:
    cluster.json(0, "PUT", "/collections/docs", EVERYWHERE)

    def write(n: int) -> None:
        body = {"points": [{"id": 7, "vector": [n, 0, 0, 0], "payload": {"n": n}}]}
        cluster.json(n % 3, "PUT", "/collections/docs/points?wait=true", body)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(90)))
    found = [cluster.json(n, "POST", "/collections/docs/points", {"ids": [7]}) for n in range(3)]
    assert found[0] == found[1] == found[2]


def test_killing_all_peers_at_once_loses_nothing(cluster: Cluster) -> None:
    cluster.json(0, "PUT", "/collections/docs", EVERYWHERE)
    field = {"field_name": "n", "field_schema": "integer"}
    cluster.json(0, "PUT", "/collections/docs/index?wait=true", field)
    for n in range(100):
        cluster.json(n % 3, "PUT", "/collections/docs/points?wait=true", points([n]))
    cluster.json(1, "POST", "/collections/docs/points/delete?wait=true", {"points": [1, 2, 3]})
    cluster.kill(0, 1, 2)
    for node in range(3):
        cluster.start(node)
    cluster.until(cluster.whole)
    cluster.until(cluster.active)
    for node in range(3):
        assert cluster.counts(node) == by_shard(set(range(100)) - {1, 2, 3})


def test_a_peer_that_has_lost_its_disk_gets_all_of_it_back(cluster: Cluster) -> None:
    cluster.json(0, "PUT", "/collections/docs", EVERYWHERE)
    cluster.json(0, "PUT", "/collections/docs/points?wait=true", points(list(range(60))))
    cluster.kill(0)
    shutil.rmtree(cluster.data / "qdrant-0")
    cluster.start(0)
    cluster.until(lambda: cluster.counts(0) == by_shard(set(range(60))))
    cluster.until(cluster.active)
    assert cluster.ids(0) == list(range(60))


def test_data_of_a_peer_from_before_collections_had_ids_are_read(tmp_path: Path) -> None:
    directory = tmp_path / "qdrant-0"
    with running(tmp_path, 1) as single:
        single.json(0, "PUT", "/collections/docs", EVERYWHERE)
        single.json(0, "PUT", "/collections/docs/points?wait=true", points([1, 2, 3]))
    meta = json.loads((directory / "meta.json").read_text())
    (directory / "consensus.json").unlink()
    uid = meta["collections"]["docs"].pop("uid")
    (directory / "collections" / uid).rename(directory / "collections" / "docs")
    (directory / "meta.json").write_text(json.dumps(meta))
    with running(tmp_path, 1) as single:
        assert single.ids(0) == [1, 2, 3]
        single.json(0, "PUT", "/collections/docs/points?wait=true", points([4]))
        assert single.ids(0) == [1, 2, 3, 4]
