"""The double of Qdrant answers whatever it is asked: nonsense in the server's form, and the calls that backups need."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.doubles.qdrant.points import shard_of

from .qdrant_cluster import EVERYWHERE, KEY, PLAIN, Cluster, by_shard, points, running


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running(tmp_path, 3) as made:
        yield made


@pytest.fixture
def single(tmp_path: Path) -> Iterator[Cluster]:
    with running(tmp_path / "single", 1, 21) as made:
        yield made


# ---------------------------------------------------------------------- requests that make no sense
P = "/collections/docs/points"
NONSENSE: tuple[tuple[str, str, Any, set[int]], ...] = (
    ("PUT", P, b"{", {400}),
    ("PUT", P, b"\xff\xfe", {400}),
    ("PUT", P, [], {400}),
    ("PUT", P, {}, {400}),
    ("PUT", P, {"points": 7}, {400}),
    ("PUT", P, {"points": [7]}, {400}),
    ("PUT", P, {"points": [{"id": 1}]}, {400}),
    ("PUT", P, {"points": [{"id": -1, "vector": [1, 2, 3, 4]}]}, {400}),
    ("PUT", P, {"points": [{"id": "x", "vector": [1, 2, 3, 4]}]}, {400}),
    ("PUT", P, {"points": [{"id": 1, "vector": "x"}]}, {400}),
    ("PUT", P, {"points": [{"id": 1, "vector": {"no": [1, 2]}}]}, {400}),
    ("PUT", P, {"points": [{"id": 1, "vector": [1, 2]}]}, {400}),
    ("PUT", P, {"points": [{"id": 1, "vector": [1, 2, 3, 4], "payload": [1]}]}, {400}),
    ("PUT", P, b'{"points": [{"id": 1, "vector": [NaN, 2, 3, 4]}]}', {400}),
    ("POST", P, {}, {400}),
    ("POST", P, {"ids": ["x"]}, {400}),
    ("POST", f"{P}/delete", {}, {400}),
    ("POST", f"{P}/delete", {"filter": {"must": [{"oh": 1}]}}, {400}),
    ("POST", f"{P}/count", {"filter": "x"}, {400}),
    ("POST", f"{P}/count", {"filter": {"must": [{"key": "n", "range": {"gt": "x"}}]}}, {400}),
    ("POST", f"{P}/scroll", {"limit": "x"}, {400}),
    ("POST", f"{P}/scroll", {"limit": 0}, {422}),
    ("POST", f"{P}/scroll", {"offset": "x"}, {400}),
    ("POST", f"{P}/query", {"query": [1, 2]}, {400}),
    ("POST", f"{P}/query", {"query": "x"}, {400}),
    ("POST", f"{P}/query", {"query": [1, 2, 3, 4], "with_payload": ["n"]}, {400}),
    ("POST", "/collections/nope/points/count", {}, {404}),
    ("PUT", "/collections/new", {"vectors": 7}, {400}),
    ("PUT", "/collections/docs/shards", {"shard_key": "one"}, {400}),
    ("PUT", "/collections/docs/shards", {}, {400}),
    ("PATCH", "/collections/none", {"metadata": {}}, {404}),
    ("PUT", "/collections/new", {"vectors": {"size": 4}}, {400}),
    ("PUT", "/collections/new", {"vectors": {"size": 4, "distance": "Far"}}, {400}),
    ("PUT", "/collections/new", {"vectors": {"size": 0, "distance": "Dot"}}, {422}),
    ("PUT", "/collections/new", {"vectors": PLAIN, "shard_number": "x"}, {400}),
    ("PUT", "/collections/new", {"vectors": PLAIN, "shard_number": -1}, {400}),
    ("PUT", "/collections/docs/index", {"field_name": "n"}, {400}),
    ("PUT", "/collections/docs/index", {"field_name": "n", "field_schema": "x"}, {400}),
    ("POST", "/collections/aliases", {}, {400}),
    ("POST", "/collections/aliases", {"actions": [{"create_alias": {}}]}, {400}),
    ("POST", "/collections/docs/shards/99/snapshots", None, {404}),
)


def test_nonsense_is_answered_in_the_server_s_form_and_makes_no_peer_look_away(
    cluster: Cluster,
) -> None:
    spec = EVERYWHERE | {"replication_factor": 1}  # so that other peers must be asked
    cluster.json(0, "PUT", "/collections/docs", spec)
    for method, path, body, statuses in NONSENSE:
        given = {"content": body} if isinstance(body, bytes) else {"json": body}
        for node in range(3):
            where = f"{method} {path} {body!r}"
            try:
                answer = cluster.ask(node, method, path, **given)
            except httpx.HTTPError as exc:
                pytest.fail(f"{where}: {exc!r}")
            assert answer.status_code in statuses, f"{where}: {answer.status_code} {answer.text}"
            assert isinstance(answer.json()["status"]["error"], str), where
            assert answer.json()["time"] >= 0, where
            failures = cluster.json(node, "GET", "/cluster")["message_send_failures"]
            assert not failures, f"{where}: {failures}"
    assert cluster.active()


def test_a_request_that_breaks_off_or_has_no_length_is_answered(single: Cluster) -> None:
    for text in (b"content-length: x\r\n\r\n", b"transfer-encoding: chunked\r\n\r\nzz\r\n"):
        with socket.create_connection((single.addresses[0], 6333), 5) as connection:
            head = f"PUT /collections/docs HTTP/1.1\r\nhost: x\r\napi-key: {KEY}\r\n"
            connection.sendall(head.encode() + text)
            assert connection.recv(99).startswith(b"HTTP/1.1 400")


# ---------------------------------------------------------------------- forms, which the server's framework refuses
def test_an_upload_that_is_no_form_or_has_no_snapshot_is_refused_before_its_shard_is_looked_for(
    single: Cluster,
) -> None:
    single.json(0, "PUT", "/collections/docs", EVERYWHERE)
    path = "/collections/docs/shards/99/snapshots/upload"
    answers = {
        "did not have 'multipart'": single.ask(0, "POST", path, content=b"x"),
        "Field with name `snapshot` is required": single.ask(
            0, "POST", path, files={"file": ("snapshot", b"x")}
        ),
        "unknown variant `all`": single.ask(
            0, "POST", f"{path}?priority=all", files={"snapshot": ("x", b"x")}
        ),
        "Checksum mismatch": single.ask(
            0, "POST", f"{path}?checksum={'0' * 64}", files={"snapshot": ("x", b"x")}
        ),
    }
    for words, answer in answers.items():
        assert answer.status_code == 400
        assert words in answer.text
    missing = single.ask(0, "POST", path, files={"snapshot": ("x", b"x")})
    assert missing.status_code == 404
    assert single.ask(0, "GET", "/nothing/like/it").content == b""


def test_a_shard_that_only_other_peers_have_is_no_local_one(cluster: Cluster) -> None:
    cluster.json(0, "PUT", "/collections/docs", EVERYWHERE | {"replication_factor": 1})
    refused = cluster.ask(0, "POST", "/collections/docs/shards/1/snapshots")
    assert refused.status_code == 400
    assert refused.json()["status"]["error"] == "Wrong input: Shard 1 is not a local shard"
    assert cluster.ask(0, "GET", "/collections/docs/shards/0/snapshots/x").status_code == 404


# ---------------------------------------------------------------------- the way back from snapshots
def digest(cluster: Cluster, node: int) -> str:
    """Of all points, read page by page."""
    body: dict[str, Any] = {"limit": 7, "with_payload": True, "with_vector": True}
    found = hashlib.sha256()
    last = -1
    while True:
        page = cluster.json(node, "POST", "/collections/docs/points/scroll", body)
        for point in page["points"]:
            assert point["id"] > last
            last = point["id"]
            found.update(json.dumps(point, sort_keys=True).encode())
        if page["next_page_offset"] is None:
            return found.hexdigest()
        body["offset"] = page["next_page_offset"]


def test_the_shards_snapshots_of_three_peers_make_the_same_collection_on_one(
    cluster: Cluster, single: Cluster
) -> None:
    spec = EVERYWHERE | {"replication_factor": 2, "hnsw_config": {"m": 8}}
    field = {"field_name": "n", "field_schema": "integer"}
    cluster.json(0, "PUT", "/collections/docs", spec)
    cluster.json(0, "PUT", "/collections/docs/index?wait=true", field)
    cluster.json(0, "PUT", "/collections/docs/points?wait=true", points(list(range(50))))
    described = cluster.json(0, "GET", "/collections/docs")
    config = described["config"]
    few = {"replication_factor": 1, "write_consistency_factor": 1}
    parts = {"hnsw_config": config["hnsw_config"], "optimizers_config": config["optimizer_config"]}
    single.json(0, "PUT", "/collections/docs", {**config["params"], **few, **parts})
    for shard, node in ((0, 0), (1, 1), (2, 2)):
        path = f"/collections/docs/shards/{shard}/snapshots"
        made = cluster.json(node, "POST", f"{path}?wait=true")
        assert cluster.json(node, "GET", path) == [made]
        data = cluster.ask(node, "GET", f"{path}/{made['name']}").content
        assert len(data) == made["size"]
        assert hashlib.sha256(data).hexdigest() == made["checksum"]
        assert cluster.json(node, "DELETE", f"{path}/{made['name']}") is True
        assert cluster.json(node, "GET", path) == []
        upload = f"{path}/upload?wait=true&priority=snapshot&checksum={made['checksum']}"
        answer = single.ask(0, "POST", upload, files={"snapshot": ("x", data)})
        assert answer.status_code == 200, answer.text
    single.json(0, "PUT", "/collections/docs/index?wait=true", field)
    alias = {"create_alias": {"collection_name": "docs", "alias_name": "live"}}
    assert single.json(0, "POST", "/collections/aliases", {"actions": [alias]}) is True
    assert digest(single, 0) == digest(cluster, 0)
    again = single.json(0, "GET", "/collections/live")
    assert again["config"] == {**config, "params": {**config["params"], **few}}
    assert again["payload_schema"] == described["payload_schema"]
    single.kill(0)
    single.start(0)
    single.until(single.whole)
    assert single.json(0, "POST", "/collections/live/points/count", {"exact": True})["count"] == 50


def test_a_shard_uploaded_in_chunks_is_taken_over_by_its_other_replicas(cluster: Cluster) -> None:
    cluster.json(0, "PUT", "/collections/docs", EVERYWHERE)
    cluster.json(0, "PUT", "/collections/docs/points?wait=true", points(list(range(30))))
    data = cluster.ask(0, "GET", "/collections/docs/shards/1/snapshot").content
    gone = {"points": list(range(30))}
    cluster.json(0, "POST", "/collections/docs/points/delete?wait=true", gone)
    head = b'--b\r\ncontent-disposition: form-data; name="snapshot"; filename="x"\r\n\r\n'
    pieces = iter([head, data[:1000], data[1000:], b"\r\n--b--\r\n"])
    path = "/collections/docs/shards/1/snapshots/upload?wait=true&priority=snapshot"
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert cluster.ask(2, "POST", path, content=pieces, headers=headers).status_code == 200
    wanted = by_shard({n for n in range(30) if shard_of(n, 3) == 1})
    assert cluster.active()  # the others are only proposed to be dead, and empty
    assert cluster.counts(0) == by_shard(set())
    cluster.until(lambda: [cluster.counts(n) for n in range(3)] == [wanted] * 3)
    cluster.until(cluster.active)


def test_the_nearest_of_a_distance_are_those_with_the_lowest_scores(single: Cluster) -> None:
    spec = {"vectors": {"size": 4, "distance": "Euclid"}, "shard_number": 3}
    single.json(0, "PUT", "/collections/docs", spec)
    single.json(0, "PUT", "/collections/docs/points?wait=true", points(list(range(9))))
    near = {"query": [5, 1, 2, 3], "limit": 2, "with_payload": True}
    first, second = single.json(0, "POST", "/collections/docs/points/query", near)["points"]
    assert (first["id"], first["score"], first["payload"]) == (5, 0.0, {"n": 5})
    assert second["score"] == 1.0


def test_deleting_an_alias_that_is_not_there_is_no_fault(single: Cluster) -> None:
    gone = {"actions": [{"delete_alias": {"alias_name": "live"}}]}
    assert single.json(0, "POST", "/collections/aliases", gone) is True
    moved = {"rename_alias": {"old_alias_name": "live", "new_alias_name": "new"}}
    refused = single.ask(0, "POST", "/collections/aliases", json={"actions": [moved]})
    assert refused.status_code == 404


# ---------------------------------------------------------------------- answers, which the server compresses
def test_every_answer_is_compressed_for_a_client_that_takes_it_and_a_file_then_has_no_length(
    single: Cluster,
) -> None:
    single.json(0, "PUT", "/collections/docs", EVERYWHERE)
    path = "/collections/docs/shards/0/snapshots"
    made = single.json(0, "POST", f"{path}?wait=true")
    asked, plain = {"accept-encoding": "gzip"}, {"accept-encoding": "identity"}
    for url in ("/collections", f"{path}/{made['name']}"):
        small, whole = (single.ask(0, "GET", url, headers=h) for h in (asked, plain))
        assert small.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in whole.headers
    assert "content-length" not in small.headers
    assert small.content == whole.content
    assert len(whole.content) == made["size"]


# ---------------------------------------------------------------------- a collection's own limits, and its shard keys
def test_strict_mode_refuses_large_pages_frequent_reads_and_further_indexes(
    single: Cluster,
) -> None:
    limits = {"enabled": True, "max_query_limit": 10, "max_payload_index_count": 1}
    single.json(0, "PUT", "/collections/docs", EVERYWHERE | {"strict_mode_config": limits})
    single.json(0, "PUT", "/collections/docs/points?wait=true", points(list(range(20))))
    scroll = "/collections/docs/points/scroll"
    refused = single.ask(0, "POST", scroll, json={"limit": 11})
    assert refused.status_code == 400
    assert 'Limit exceeded 11 > 10 for "limit"' in refused.json()["status"]["error"]
    fields = [{"field_name": name, "field_schema": "integer"} for name in ("n", "m")]
    index = "/collections/docs/index?wait=true"
    assert [single.ask(0, "PUT", index, json=one).status_code for one in fields] == [200, 400]
    rate = {"strict_mode_config": {"read_rate_limit": 2}}
    single.json(0, "PATCH", "/collections/docs", rate)
    answers = [single.ask(0, "POST", scroll, json={"limit": 1}) for _ in range(3)]
    assert [one.status_code for one in answers] == [200, 200, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30
    shown = single.json(0, "GET", "/collections/docs")["config"]["strict_mode_config"]
    assert shown == {**limits, "read_rate_limit": 2}


def test_one_id_under_two_shard_keys_is_two_points_and_one_where_no_key_is_given(
    cluster: Cluster,
) -> None:
    spec = {"vectors": PLAIN, "sharding_method": "custom", "replication_factor": 2}
    cluster.json(0, "PUT", "/collections/docs", spec)
    for key in ("east", 1, "1"):
        cluster.json(0, "PUT", "/collections/docs/shards", {"shard_key": key})
        body = {**points(list(range(8))), "shard_key": key}
        cluster.json(0, "PUT", "/collections/docs/points?wait=true", body)
    scroll = "/collections/docs/points/scroll"

    def ids(**more: Any) -> list[tuple[int, Any]]:
        found = cluster.json(1, "POST", scroll, {"limit": 100, **more})["points"]
        return [(point["id"], point["shard_key"]) for point in found]

    assert ids(shard_key=1) == [(n, 1) for n in range(8)]
    assert ids(shard_key="1") == [(n, "1") for n in range(8)]
    assert [number for number, _ in ids()] == list(range(8))
    layout = cluster.json(0, "GET", "/collections/docs/cluster")
    copies = [*layout["local_shards"], *layout["remote_shards"]]
    assert {(c["shard_id"], c["shard_key"]) for c in copies} == {(1, "east"), (2, 1), (3, "1")}
    without = cluster.ask(0, "PUT", "/collections/docs/points", json=points([1]))
    assert without.status_code == 400


def test_metadata_and_what_only_a_change_takes_are_shown(single: Cluster) -> None:
    spec = EVERYWHERE | {"metadata": {"model": "m"}, "read_fan_out_factor": 2}
    single.json(0, "PUT", "/collections/docs", spec)
    assert (
        "read_fan_out_factor" not in single.json(0, "GET", "/collections/docs")["config"]["params"]
    )
    single.json(0, "PATCH", "/collections/docs", {"params": {"read_fan_out_factor": 2}})
    config = single.json(0, "GET", "/collections/docs")["config"]
    assert (config["params"]["read_fan_out_factor"], config["metadata"]) == (2, {"model": "m"})
