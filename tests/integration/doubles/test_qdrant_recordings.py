"""The double answers as a real Qdrant 1.16.3 cluster did: 51 recorded requests, replayed in their order."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sandbox.doubles.qdrant.points import shard_of

from .qdrant_cluster import READER, Cluster, running

RECORDINGS = json.loads(Path(__file__).with_name("qdrant-recordings.json").read_text())["answers"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running(tmp_path, 3) as made:
        yield made


def points(count: int, first: int = 0) -> dict[str, Any]:
    return {
        "points": [
            {
                "id": n,
                "vector": {
                    "text": [0.01 + ((n * 7 + i) % 11) / 10 for i in range(8)],
                    "image": [n, 1, 2, 3],
                },
                "payload": {"n": n, "kind": "ab"[n % 2]},
            }
            for n in range(first, first + count)
        ]
    }


def shape(value: Any) -> Any:
    """What kind of answer it is: keys and types; numbers, times, names and ids differ."""
    if isinstance(value, dict):
        return {
            re.sub(r"^\d{6,}$|^http://.*$", "<peer>", k): shape(v) for k, v in sorted(value.items())
        }
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, bool) or value is None:
        return value
    return "number" if isinstance(value, (int, float)) else "text"


def same_words(said: str, recorded: str) -> bool:
    """Whether two messages differ only in paths, names, addresses and hashes."""

    def plain(text: str) -> str:
        text = re.sub(r"[`\"][^`\"]*/[^`\"]*[`\"]", "<path>", text)
        text = re.sub(r"http://[\d.:/]+|[0-9a-f]{64}|\b\d+ of \d+\b", "<x>", text)
        return re.split(r"\n|<path>|: Service", text)[0]

    return plain(said) == plain(recorded)


def test_all_recorded_answers_are_given_by_the_double(cluster: Cluster) -> None:
    snapshot = b""
    name = checksum = ""
    for number, recorded in enumerate(RECORDINGS):
        request, note = recorded["request"], recorded["note"]
        where = f"{number}: {note}"
        path, body = request["path"], request["body"]
        path = re.sub(r"docs-shard-0-[-\d]+\.snapshot", name, path)
        headers = {"no key": {"api-key": ""}, "wrong key": {"api-key": "wrong"}}.get(note, {})
        given: dict[str, Any] = {"headers": headers}
        if note in ("cluster, one peer killed", "count, two peers killed"):
            victim = {"cluster, one peer killed": 2, "count, two peers killed": 1}[note]
            cluster.kill(victim)
            cluster.until(partial(_away, cluster, 3 - victim))
        if isinstance(body, str) and "multipart" in body:
            data = {
                "upload truncated": snapshot[: len(snapshot) // 2],
                "upload with 64 bytes changed, no checksum": _damaged(snapshot),
            }.get(note, snapshot)
            path = path.replace(
                str(re.findall(r"checksum=([1-9a-f]\w+)|$", path)[0] or "-"), checksum
            )
            given["files"] = {"snapshot": ("x", data)}
        elif isinstance(body, str):
            count = int(re.findall(r"\d+", body)[0])
            given["json"] = _few(cluster, note) if count == 3 else points(count)
        elif body is not None:
            given["json"] = body
        answer = cluster.ask(request["node"], request["method"], path, **given)
        assert answer.status_code == recorded["status"], f"{where}: {answer.text}"
        kind = recorded["headers"].get("content-type", "")
        if kind.startswith("application/octet"):
            assert len(answer.content) > 10_000, where
        elif not kind.startswith("application/json"):
            assert answer.text == recorded["body"], where
        elif "error" in str(recorded["body"].get("status")):
            assert same_words(
                answer.json()["status"]["error"], recorded["body"]["status"]["error"]
            ), f"{where}: {answer.text}"
        else:
            assert shape(answer.json()) == shape(recorded["body"]), where
        if note == "shard snapshot":
            name, checksum = answer.json()["result"]["name"], answer.json()["result"]["checksum"]
        if note == "download":
            snapshot = answer.content


def test_data_survive_a_kill_and_a_peer_that_was_away_catches_up(cluster: Cluster) -> None:
    vectors = {"text": {"size": 8, "distance": "Cosine"}, "image": {"size": 4, "distance": "Dot"}}
    cluster.json(
        0,
        "PUT",
        "/collections/docs",
        {"vectors": vectors, "shard_number": 3, "replication_factor": 2},
    )
    cluster.json(0, "PUT", "/collections/docs/points?wait=true", points(60))
    cluster.kill(2)
    states = cluster.json(0, "GET", "/collections/docs/cluster")["remote_shards"]
    assert {s["state"] for s in states} == {"Active"}, "nobody notices before a write"
    cluster.json(0, "PUT", "/collections/docs/points?wait=true", points(60, 60))
    states = cluster.json(0, "GET", "/collections/docs/cluster")["remote_shards"]
    assert sorted(s["state"] for s in states).count("Dead") == 2
    cluster.start(2)
    cluster.until(lambda: "Dead" not in str(cluster.json(0, "GET", "/collections/docs/cluster")))
    cluster.kill(0)
    cluster.until(
        lambda: (
            cluster.json(2, "POST", "/collections/docs/points/count", {"exact": True})["count"]
            == 120
        )
    )


def test_a_reader_s_key_does_not_write(cluster: Cluster) -> None:
    refused = cluster.ask(0, "PUT", "/collections/x", json={}, headers={"api-key": READER})
    assert refused.status_code == 403
    assert cluster.ask(0, "GET", "/collections", headers={"api-key": READER}).status_code == 200


def _away(cluster: Cluster, count: int) -> bool:
    """Whether the first peer misses as many others."""
    return len(cluster.json(0, "GET", "/cluster")["message_send_failures"]) == count


def _few(cluster: Cluster, note: str) -> dict[str, Any]:
    """Three points of a shard that the peer asked has itself: more would need the peers that are dead."""
    wanted = 0 if "two" in note else 2
    ids = [n for n in range(1000, 2000) if shard_of(n, 3) == wanted][:3]
    return {"points": [points(1, n)["points"][0] for n in ids]}


def _damaged(archive: bytes) -> bytes:
    """64 bytes of the vectors changed: what no tar can see."""
    at = archive.index(struct.pack("<3f", 1, 2, 3)) + 12
    return archive[:at] + b"\x01" * 64 + archive[at + 64 :]
