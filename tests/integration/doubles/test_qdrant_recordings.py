"""The double answers as a real Qdrant 1.16.3 cluster did: 51 recorded requests, replayed in their order."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

RECORDINGS = json.loads(Path(__file__).with_name("qdrant-recordings.json").read_text())["answers"]
KEY = "the-key-of-the-test"
NETWORK = f"127.{100 + os.getpid() % 100}.9"
PEERS = {f"qdrant-{n}": f"{NETWORK}.{n + 1}" for n in range(3)}
PATIENCE_SECONDS = 20.0


@dataclass
class Cluster:
    """Three peers as processes."""

    data: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        peers = ",".join(f"{n}={a}" for n, a in PEERS.items())
        module = "deployments.sandbox.doubles.qdrant"
        argv = [
            sys.executable,
            "-m",
            module,
            "--name",
            name,
            "--data",
            str(self.data / name),
            "--peers",
            peers,
        ]
        environ = {
            **os.environ,
            "QDRANT__SERVICE__API_KEY": KEY,
            "QDRANT__SERVICE__READ_ONLY_API_KEY": "read",
        }
        self.processes[name] = subprocess.Popen(argv, env=environ)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def ask(self, node: int, method: str, path: str, **given: Any) -> httpx.Response:
        headers = {"api-key": KEY} | given.pop("headers", {})
        return httpx.request(
            method,
            f"http://{PEERS[f'qdrant-{node}']}:6333{path}",
            headers=headers,
            timeout=20,
            **given,
        )

    def json(self, node: int, method: str, path: str, body: Any = None) -> Any:
        return self.ask(node, method, path, json=body).raise_for_status().json()["result"]

    def until(self, holds: Any) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                if holds():
                    return
            except httpx.HTTPError:
                pass
            assert time.monotonic() < deadline, "not in time"
            time.sleep(0.1)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    try:
        for name in PEERS:
            made.start(name)
        for node in range(3):
            made.until(lambda n=node: not made.json(n, "GET", "/cluster")["message_send_failures"])
        yield made
    finally:
        for process in made.processes.values():
            process.kill()
            process.wait()


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
            cluster.kill(f"qdrant-{victim}")
            cluster.until(
                lambda v=victim: (
                    len(cluster.json(0, "GET", "/cluster")["message_send_failures"]) == 3 - v
                )
            )
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
    cluster.kill("qdrant-2")
    states = cluster.json(0, "GET", "/collections/docs/cluster")["remote_shards"]
    assert {s["state"] for s in states} == {"Active"}, "nobody notices before a write"
    cluster.json(0, "PUT", "/collections/docs/points?wait=true", points(60, 60))
    states = cluster.json(0, "GET", "/collections/docs/cluster")["remote_shards"]
    assert sorted(s["state"] for s in states).count("Dead") == 2
    cluster.start("qdrant-2")
    cluster.until(lambda: "Dead" not in str(cluster.json(0, "GET", "/collections/docs/cluster")))
    cluster.kill("qdrant-0")
    cluster.until(
        lambda: (
            cluster.json(2, "POST", "/collections/docs/points/count", {"exact": True})["count"]
            == 120
        )
    )


def test_a_reader_s_key_does_not_write(cluster: Cluster) -> None:
    refused = cluster.ask(0, "PUT", "/collections/x", json={}, headers={"api-key": "read"})
    assert refused.status_code == 403
    assert cluster.ask(0, "GET", "/collections", headers={"api-key": "read"}).status_code == 200


def _few(cluster: Cluster, note: str) -> dict[str, Any]:
    """Three points of a shard that the peer asked has itself: more would need the peers that are dead."""
    from deployments.sandbox.doubles.qdrant.points import shard_of

    wanted = 0 if "two" in note else 2
    ids = [n for n in range(1000, 2000) if shard_of(n, 3) == wanted][:3]
    return {"points": [points(1, n)["points"][0] for n in ids]}


def _damaged(archive: bytes) -> bytes:
    """64 bytes of the vectors changed: what no tar can see."""
    at = archive.index(struct.pack("<3f", 1, 2, 3)) + 12
    return archive[:at] + b"\x01" * 64 + archive[at + 64 :]
