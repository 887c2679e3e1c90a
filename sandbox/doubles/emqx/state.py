"""The tables that the nodes share: users, keys, rules. They have a version; the highest one wins. Kept in a file.

Only the node that has the lock makes changes; the first running node lends the lock. After a partition both halves
work, as in EMQX, and the half with fewer changes loses them when the nodes meet again.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from sandbox.machine.paths import write_atomic

INTERNAL_PORT = 5369
TIMEOUT_SECONDS = 2.0
BEAT_SECONDS = 0.5
# A lender waits less than a borrower's request may take. A dead borrower keeps the lock for one lease at most.
LEND_SECONDS, BORROW_SECONDS, LEASE_SECONDS = 1.0, 15.0, 5.0
TABLES = (
    "mqtt_users", "dashboard_users", "api_keys", "rules", "banned",
    "acl", "connectors", "actions", "sources", "bridges", "revoked",
    "sys", "expiry", "retainer", "authorization",
)  # fmt: skip


class State:
    """The shared tables, as one node has them.

    Args:
        name: name of this node's pod.
        peers: pod name → address of all nodes.
        file: the file with the tables.
        cookie: the shared secret of the nodes.
        changed: called with the tables after every change.
    """

    def __init__(
        self, name: str, peers: dict[str, str], file: Path, cookie: str, changed: Callable[[], None]
    ) -> None:
        self.name = name
        self.peers = peers
        self._file = file
        # one client: creating one takes 20 ms, and requests are frequent
        self._http = httpx.Client(headers={"x-cookie": cookie}, timeout=TIMEOUT_SECONDS)
        self._changed = changed
        self._lock = threading.RLock()
        self._free = threading.Condition()
        self._lent: tuple[str, float] = ("", 0.0)  # ticket, until when
        self.away: set[str] = set()
        fresh: dict[str, Any] = {"version": 0, "writer": "", "internal_password": ""}
        fresh |= {table: {} for table in TABLES}
        self.tables: dict[str, Any] = (
            fresh | json.loads(file.read_text(encoding="utf-8")) if file.exists() else fresh
        )

    def join(self) -> None:
        """Load the tables from other nodes. If there are none, the first node creates them."""
        deadline = time.monotonic() + 15
        while True:
            self.look()
            # a node with data may start alone; the first node must hear the others, or wait
            if self.tables["version"] > 0:
                return
            if self.name.endswith("-0") and (not self.away or time.monotonic() > deadline):
                self.change(lambda tables: tables.update(internal_password=secrets.token_hex(16)))
                return
            time.sleep(0.2)

    def look(self) -> None:
        """Ask all other nodes for newer tables, and record which do not answer."""
        for name in self.others():
            answer = self.ask(name, "GET", "/state")
            if answer is not None:
                self.take(answer.json())

    def beat(self) -> None:
        """Update forever."""
        while True:
            self.look()
            time.sleep(BEAT_SECONDS)

    def others(self) -> list[str]:
        """Pods of the other nodes."""
        return [name for name in sorted(self.peers) if name != self.name]

    def take(self, tables: dict[str, Any]) -> None:
        """Use another node's tables if they are newer. With equal versions all nodes choose the same."""
        with self._lock:
            if _age(tables) <= _age(self.tables):
                return
            self._adopt(tables)
        self._changed()

    def change(self, edit: Callable[[dict[str, Any]], Any]) -> Any:
        """Change the tables on all nodes that answer; nothing changes if the edit raises.

        Raises:
            TimeoutError: other changes did not end in time.
        """
        ticket = secrets.token_hex(8)
        lender = self._borrow(ticket)
        try:
            with self._lock:
                tables = json.loads(json.dumps(self.tables))
                result = edit(tables)
                tables["version"] += 1
                tables["writer"] = self.name
                self._adopt(tables)
            self._changed()
            for name in self.others():
                if name not in self.away:  # a node that returns asks by itself
                    self.ask(name, "PUT", "/state", tables)
        finally:
            if lender == self.name:
                self.give_back(ticket)
            else:
                self.ask(lender, "DELETE", "/lock", {"ticket": ticket})
        return result

    def lend(self, ticket: str) -> bool:
        """Lend the lock to the owner of this ticket, unless it takes too long."""
        deadline = time.monotonic() + LEND_SECONDS
        with self._free:
            while (now := time.monotonic()) < self._lent[1]:
                if now >= deadline:
                    return False
                self._free.wait(min(deadline, self._lent[1]) - now)
            self._lent = (ticket, now + LEASE_SECONDS)
            return True

    def give_back(self, ticket: str) -> None:
        """Take the lock back."""
        with self._free:
            if self._lent[0] == ticket:
                self._lent = ("", 0.0)
                self._free.notify()

    def ask(self, name: str, method: str, path: str, body: Any = None) -> httpx.Response | None:
        """Send a request to another node. None if it does not answer or has another cookie."""
        try:
            answer = self._http.request(
                method, f"http://{self.peers[name]}:{INTERNAL_PORT}{path}", json=body
            )
        except httpx.HTTPError:
            self.away.add(name)
            return None
        if answer.status_code == 403:
            self.away.add(name)
            return None
        self.away.discard(name)
        return answer

    def _borrow(self, ticket: str) -> str:
        """Get the lock and the lender's tables. Returns the lender."""
        deadline = time.monotonic() + BORROW_SECONDS
        while time.monotonic() < deadline:
            lender = next(
                n for n in sorted(self.peers) if n == self.name or n not in self.away
            )  # all nodes that see the same nodes choose the same one
            if lender == self.name:
                if self.lend(ticket):
                    return lender
                continue
            answer = self.ask(lender, "POST", "/lock", {"ticket": ticket})
            if answer is not None and answer.status_code == 200:
                self.take(answer.json())
                return lender
        raise TimeoutError("other changes did not end in time")

    def _adopt(self, tables: dict[str, Any]) -> None:
        self.tables = tables
        write_atomic(self._file, json.dumps(tables))


def _age(tables: dict[str, Any]) -> tuple[int, str]:
    return tables["version"], tables.get("writer", "")
