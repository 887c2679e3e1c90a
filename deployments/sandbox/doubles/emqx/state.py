"""What the nodes share: users, keys, rules. Broadcast with a version, the highest wins; kept in a file."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from deployments.sandbox.paths import write_atomic

INTERNAL_PORT = 5369
TIMEOUT_SECONDS = 2.0
BEAT_SECONDS = 0.5
TABLES = ("mqtt_users", "dashboard_users", "api_keys", "rules", "banned")


class State:
    """The shared tables, as one node has them.

    Args:
        name: of this node's pod.
        peers: pod name → address of all nodes.
        file: where it is kept.
        cookie: what nodes show one another.
        changed: called with the tables after every change.
    """

    def __init__(
        self, name: str, peers: dict[str, str], file: Path, cookie: str, changed: Callable[[], None]
    ) -> None:
        self.name = name
        self.peers = peers
        self._file = file
        # one client: making one takes 20 ms of a core, and two are called twice a second
        self._http = httpx.Client(headers={"x-cookie": cookie}, timeout=TIMEOUT_SECONDS)
        self._changed = changed
        self._lock = threading.RLock()
        self.away: set[str] = set()
        fresh: dict[str, Any] = {"version": 0, "internal_password": "", **{t: {} for t in TABLES}}
        self.tables: dict[str, Any] = json.loads(file.read_text()) if file.exists() else fresh

    def join(self) -> None:
        """Take what the others have; the first node makes the beginnings if nobody has any."""
        deadline = time.monotonic() + 15
        while True:
            self.look()
            # a node that was here before may begin alone; the first one, when it has heard the others or waited
            if self.tables["version"] > 0:
                return
            if self.name.endswith("-0") and (not self.away or time.monotonic() > deadline):
                self.change(lambda tables: tables.update(internal_password=secrets.token_hex(16)))
                return
            time.sleep(0.2)

    def look(self) -> None:
        """Ask all others for newer tables, and see who is away."""
        for name in [n for n in self.peers if n != self.name]:
            answer = self._call(name, "GET")
            if answer is not None:
                self.take(answer.json())

    def beat(self) -> None:
        """Look for ever."""
        while True:
            self.look()
            time.sleep(BEAT_SECONDS)

    def take(self, tables: dict[str, Any]) -> None:
        """Take another node's tables if they are newer."""
        with self._lock:
            if tables["version"] <= self.tables["version"]:
                return
            self._adopt(tables)
        self._changed()

    def change(self, edit: Callable[[dict[str, Any]], Any]) -> Any:
        """Change the tables on all nodes that answer."""
        with self._lock:
            tables = json.loads(json.dumps(self.tables))
            result = edit(tables)
            tables["version"] += 1
            self._adopt(tables)
        self._changed()
        for name in [n for n in self.peers if n != self.name]:
            self._call(name, "PUT", tables)
        return result

    def _adopt(self, tables: dict[str, Any]) -> None:
        self.tables = tables
        write_atomic(self._file, json.dumps(tables))

    def _call(self, name: str, method: str, body: Any = None) -> httpx.Response | None:
        url = f"http://{self.peers[name]}:{INTERNAL_PORT}/state"
        try:
            answer = self._http.request(method, url, json=body).raise_for_status()
        except httpx.HTTPError:
            self.away.add(name)
            return None
        self.away.discard(name)
        return answer
