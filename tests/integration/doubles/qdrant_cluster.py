"""Peers of the double of Qdrant as processes, for tests that ask and kill them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from sandbox.doubles.qdrant.points import shard_of

MODULE = "sandbox.doubles.qdrant"
NETWORK = f"127.{100 + os.getpid() % 100}"
PATIENCE_SECONDS = 40.0
PLAIN = {"size": 4, "distance": "Dot"}
EVERYWHERE = {"vectors": PLAIN, "shard_number": 3, "replication_factor": 3}
KEY, READER = "the-key-of-the-test", "read"


class Cluster:
    """Peers as processes.

    Args:
        data: where each has a directory.
        size: how many.
        subnet: of their addresses, another one for each cluster that runs at the same time.
    """

    def __init__(self, data: Path, size: int, subnet: int = 20) -> None:
        self.data = data
        self.addresses = [f"{NETWORK}.{subnet}.{n + 1}" for n in range(size)]
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.http = httpx.Client(timeout=40, headers={"api-key": KEY})

    def start(self, node: int) -> None:
        peers = ",".join(f"qdrant-{n}={a}" for n, a in enumerate(self.addresses))
        name = f"qdrant-{node}"
        argv = [sys.executable, "-m", MODULE, "--name", name, "--data", str(self.data / name)]
        keys = {"QDRANT__SERVICE__API_KEY": KEY, "QDRANT__SERVICE__READ_ONLY_API_KEY": READER}
        environ = {**os.environ, **keys}
        self.processes[node] = subprocess.Popen([*argv, "--peers", peers], env=environ)

    def kill(self, *nodes: int) -> None:
        ended = [self.processes.pop(node) for node in nodes]
        for process in ended:
            process.send_signal(signal.SIGKILL)
        for process in ended:
            process.wait()

    def ask(self, node: int, method: str, path: str, **given: Any) -> httpx.Response:
        return self.http.request(method, f"http://{self.addresses[node]}:6333{path}", **given)

    def json(self, node: int, method: str, path: str, body: Any = None) -> Any:
        answer = self.ask(node, method, path, json=body)
        assert answer.status_code == 200, f"{method} {path}: {answer.text}"
        return answer.json()["result"]

    def until(self, holds: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                if holds():
                    return
            except (httpx.HTTPError, AssertionError):
                pass
            assert time.monotonic() < deadline, "not in time"
            time.sleep(0.1)

    def whole(self) -> bool:
        """Whether all peers reach one another."""
        return not any(
            self.json(n, "GET", "/cluster")["message_send_failures"]
            for n in range(len(self.addresses))
        )

    def active(self, name: str = "docs") -> bool:
        """Whether every peer calls every replica active."""
        layouts = [self.json(n, "GET", f"/collections/{name}/cluster") for n in self.processes]
        return all(
            shard["state"] == "Active"
            for layout in layouts
            for shard in layout["local_shards"] + layout["remote_shards"]
        )

    def counts(self, node: int, name: str = "docs") -> dict[int, int]:
        """Points of the replicas that a peer has itself, by shard."""
        found = self.json(node, "GET", f"/collections/{name}/cluster")["local_shards"]
        return {shard["shard_id"]: shard["points_count"] for shard in found}

    def ids(self, node: int, name: str = "docs") -> list[Any]:
        body = {"limit": 100_000, "with_payload": False}
        return [
            p["id"]
            for p in self.json(node, "POST", f"/collections/{name}/points/scroll", body)["points"]
        ]

    def end(self) -> None:
        self.kill(*self.processes)
        self.http.close()


@contextmanager
def running(data: Path, size: int, subnet: int = 20) -> Iterator[Cluster]:
    made = Cluster(data, size, subnet)
    try:
        for node in range(size):
            made.start(node)
        made.until(made.whole)
        yield made
    finally:
        made.end()


def points(ids: list[int]) -> dict[str, Any]:
    return {"points": [{"id": n, "vector": [n, 1, 2, 3], "payload": {"n": n}} for n in ids]}


def by_shard(ids: set[int], shards: int = 3) -> dict[int, int]:
    return {s: sum(shard_of(n, shards) == s for n in ids) for s in range(shards)}
