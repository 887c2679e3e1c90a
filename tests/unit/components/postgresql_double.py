"""Nodes of PostgreSQL as far as a gate and a pause ask them: statements are known by their words, tables by their rows.

It stands where psycopg connects (`psycopg.connect`), so that everything above it is the product's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import psycopg

from components.access import Access, Endpoint
from components.postgresql.client import PORT, STATEFULSET
from config.sections.wal import PostgresqlWal


@dataclass
class Node:
    """One server.

    Attributes:
        name: of its pod.
        standby: whether it replays.
        system: identifier of its cluster.
        timeline: of its WAL.
        paused: by whom its replay is held, as `NodeStatus`.
        away: whether it refuses connections.
        pending: settings that wait for a restart.
        arrives: whether what the primary commits can be read here.
    """

    name: str
    standby: bool = True
    system: str = "7"
    timeline: int = 3
    paused: str = ""
    away: bool = False
    pending: tuple[str, ...] = ()
    arrives: bool = True


@dataclass
class Cluster:
    """A primary, two standbys and their proxies.

    Attributes:
        nodes: the servers; the first is the primary.
        lag: standby → bytes; those that are not here do not stream.
        names: whether standbys announce themselves by their names.
        others: further rows of `pg_stat_replication`.
        slots: unused ones → bytes that they hold.
        streams: whether the WAL is stored continuously.
        owner: of the gate's schema, where it is not ours.
        pools: Pgpool → rows of `SHOW pool_nodes`.
        read_only: hosts whose sessions take no write.
        tokens: rows of the gate's table.
        fails: words of a statement → what it raises, one for each time.
        hangs: whether a commit waits until it is cancelled.
        waits_for: `synchronous_standby_names` of a commit that waits for a standby.
        said: node and statement, in order.
        opened: what each connection was opened with.
    """

    nodes: list[Node] = field(
        default_factory=lambda: [Node(f"{STATEFULSET}-{n}", standby=n > 0) for n in range(3)]
    )
    lag: dict[str, int | None] = field(
        default_factory=lambda: {f"{STATEFULSET}-{n}": 0 for n in (1, 2)}
    )
    names: bool = True
    others: list[dict[str, Any]] = field(default_factory=list)
    slots: dict[str, int] = field(default_factory=dict)
    streams: bool = False
    owner: tuple[str, str] | None = None
    pools: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    read_only: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    fails: dict[str, list[Exception]] = field(default_factory=dict)
    hangs: bool = False
    waits_for: str = ""
    said: list[tuple[str, str]] = field(default_factory=list)
    opened: list[dict[str, Any]] = field(default_factory=list)

    def connect(self, **given: Any) -> Connection:
        """As `psycopg.connect`."""
        self.opened.append(given)
        node = next((one for one in self.nodes if one.name == given["host"]), None)
        if node is not None and node.away:
            raise psycopg.OperationalError("connection refused")
        return Connection(self, given["host"], node or Node(given["host"]))

    def access(self, **settings: Any) -> Access:
        """The way in, as components get it."""
        wanted = {"members": len(self.nodes), "max_lag_bytes": 1000, "pgpool": bool(self.pools)}
        made = SimpleNamespace(
            timeout_seconds=4.0,
            settings=SimpleNamespace(
                components=SimpleNamespace(postgresql=SimpleNamespace(**{**wanted, **settings})),
                kubernetes=SimpleNamespace(namespace="engines"),
                wal=SimpleNamespace(postgresql=PostgresqlWal(enabled=self.streams)),
            ),
            endpoints=lambda workload, members, port: [
                self.endpoint(f"{workload}-{n}", port) for n in range(members)
            ],
            endpoint=self.endpoint,
            kube=SimpleNamespace(list=self.pods),
            secret=lambda name, key: f"{name}/{key}",
        )
        return cast(Access, made)

    def endpoint(self, pod: str, port: int = PORT) -> Endpoint:
        return Endpoint(pod, pod, port, f"ip-of-{pod}", "")

    def pods(self, *asked: str) -> list[dict[str, Any]]:
        assert asked == ("v1", "Pod", "engines", "app.kubernetes.io/component=pgpool")
        return [{"metadata": {"name": name}} for name in self.pools]


class Connection:
    """A session at one node."""

    def __init__(self, cluster: Cluster, host: str, node: Node) -> None:
        self._cluster, self._host, self._node = cluster, host, node
        self._cancelled = Event()
        self.info = SimpleNamespace(backend_pid=4711, host=host)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        pass

    def cancel_safe(self, timeout: float) -> None:
        self._cancelled.set()

    def cursor(self, row_factory: Any) -> Connection:
        return self

    def execute(self, query: str | bytes, values: Any = ()) -> Any:
        text = " ".join((query.decode() if isinstance(query, bytes) else query).split())
        self._cluster.said.append((self._host, text))
        for words, errors in self._cluster.fails.items():
            if words in text and errors:
                raise errors.pop(0)
        for words, answer in self._answers.items():
            if words in text:
                rows = answer(*values)
                break
        else:
            rows = []
        return SimpleNamespace(fetchall=lambda: rows, fetchone=lambda: rows[0] if rows else None)

    @property
    def _answers(self) -> dict[str, Callable[..., list[Any]]]:
        cluster, node = self._cluster, self._node
        return {
            "pg_is_in_recovery() AS standby": lambda: [
                {
                    "standby": node.standby, "system": node.system, "timeline": node.timeline,
                    "version": "18.1", "number": 180001, "paused": node.paused,
                }
            ],
            "FROM pg_stat_replication": self._replication,
            "FROM pg_replication_slots": lambda: [
                {"slot_name": name, "held": held} for name, held in cluster.slots.items()
            ],
            "pending_restart": lambda: [{"name": name} for name in node.pending],
            "pg_get_userbyid": lambda: [cluster.owner] if cluster.owner else [],
            "SHOW pool_nodes": lambda: cluster.pools[self._host],
            "wait_event = 'SyncRep'": lambda pid: (
                [(cluster.waits_for,)] if cluster.waits_for and pid == 4711 else []
            ),
            "INSERT INTO": self._insert,
            "WHERE token = %s": self._of_token,
        }  # fmt: skip

    def _replication(self) -> list[dict[str, Any]]:
        rows = [
            {
                "name": name if self._cluster.names else "walreceiver",
                "address": f"ip-of-{name}", "state": "streaming", "sync_state": "async", "lag": lag,
            }
            for name, lag in self._cluster.lag.items()
        ]  # fmt: skip
        return [*rows, *self._cluster.others]

    def _insert(self, token: str) -> list[Any]:
        if self._host in self._cluster.read_only:
            raise psycopg.errors.ReadOnlySqlTransaction(
                "cannot execute INSERT in a read-only transaction"
            )
        if self._cluster.hangs:
            assert self._cancelled.wait(10)
        self._cluster.tokens.add(token)
        return []

    def _of_token(self, token: str) -> list[Any]:
        if self._cluster.said[-1][1].startswith("DELETE"):
            self._cluster.tokens.discard(token)
            return []
        return [(1,)] if token in self._cluster.tokens and self._node.arrives else []
