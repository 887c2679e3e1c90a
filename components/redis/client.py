"""Client for one member of Redis Cluster, and the member's view of the cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from calls import call
from components.access import Access, Endpoint
from components.questions import PROBE
from config.text.printable import first_of

STATEFULSET = "redis-cluster"
PORT, SLOTS = 6379, 16384
# Fields of `INFO memory` that are not used by keys (redis/redis src/object.c, `getMemoryOverheadData`).
OWN_MEMORY = (
    "used_memory_startup",
    "mem_replication_backlog",
    "mem_clients_normal",
    "mem_cluster_links",
)
# Fields that do not count for maxmemory either (src/evict.c, `freeMemoryGetNotCountedMemory`).
UNCOUNTED_MEMORY = ("mem_clients_slaves", "mem_aof_buffer")
OPEN_SHOWN = 5  # open slots shown in a message
# Functions, users and settings may have any bytes. With this error handler they are written back unchanged.
REVERSIBLE = "surrogateescape"
SECRET, KEY = "redis-auth", "redis-password"


class Client(redis.Redis):
    """A client whose commands are recorded with `calls.call`."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """As `redis.Redis.execute_command`; the log names the command alone, its arguments may be keys and values."""
        at = self.connection_pool.connection_kwargs
        with call(f"Redis {at['host']}:{at['port']}: {args[0]}"):
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class View:
    """A member's view of the cluster.

    Attributes:
        nodes: its `CLUSTER NODES`, by `address:port`.
        info: its `INFO replication`.
        state: `ok` or `fail`.
    """

    nodes: Mapping[str, Mapping[str, Any]]
    info: Mapping[str, Any]
    state: str

    def slots(self) -> dict[int, str]:
        """Slot → address of its master."""
        return {
            slot: address
            for address, node in self.nodes.items()
            if "master" in node["flags"] and not {"fail", "handshake"} & set(_flags(node))
            for low, high in (_range(part) for part in node["slots"])
            for slot in range(low, high + 1)
        }

    @property
    def behind(self) -> int | None:
        """Bytes that a replica has received and not applied yet; None for a master or a broken link."""
        if self.info["role"] != "slave" or self.info["master_link_status"] != "up":
            return None
        return int(self.info["slave_read_repl_offset"]) - int(self.info["slave_repl_offset"])

    @property
    def open_slots(self) -> dict[int, str]:
        """Slot → `migrating` or `importing`, for slots that move or that a broken resharding left open.

        A member reports only its own slots (redis/redis src/cluster_legacy.c, `clusterGenNodeDescription`).
        """
        return {
            int(slot["slot"]): str(slot["state"])
            for node in self.nodes.values()
            for slot in node.get("migrations", ())
        }


def read_view(access: Access, member: Endpoint) -> View:
    """Ask a member for its view of the cluster."""
    with connect(access, member) as client:
        nodes: Any = client.execute_command("CLUSTER NODES")
        state: Any = client.execute_command("CLUSTER INFO")
        info: Any = client.info("replication")
    return View(nodes, info, str(state["cluster_state"]))


def connect(access: Access, member: Endpoint) -> redis.Redis:
    """Connect to one member."""
    return Client(
        host=member.host,
        port=member.port,
        password=access.secret(SECRET, KEY),
        socket_timeout=access.timeout_seconds,
        socket_connect_timeout=access.timeout_seconds,
        retry=Retry(
            NoBackoff(), 0
        ),  # the gate repeats its checks; a retry here would hide problems
        client_name=PROBE,
        decode_responses=True,
        encoding_errors=REVERSIBLE,
    )


def data_bytes(memory: Mapping[str, Any]) -> int:
    """Bytes of keys and values, from `INFO memory`: what another server needs in addition to its own memory."""
    own = sum(int(memory.get(name, 0)) for name in (*OWN_MEMORY, *UNCOUNTED_MEMORY))
    return max(0, int(memory["used_memory"]) - own)


def own_bytes(memory: Mapping[str, Any]) -> int:
    """Bytes of `maxmemory` that a server needs for itself: startup, clients, backlog, cluster bus."""
    return sum(int(memory.get(name, 0)) for name in OWN_MEMORY)


def open_slots(views: Mapping[str, View]) -> str:
    """The open slots with their members, and how to close them; "" if there are none."""
    lines = [
        f"slot {slot} is {state} on {member}"
        for member, view in sorted(views.items())
        for slot, state in sorted(view.open_slots.items())
    ]
    if not lines:
        return ""
    return (
        f"{', '.join(first_of(lines, OPEN_SHOWN))}. If no resharding is running: `redis-cli --cluster fix "
        f"{min(views)}:{PORT}`"
    )


def ranges(slots: Iterable[int]) -> str:
    """`0-5460, 7000`."""
    parts: list[list[int]] = []
    for slot in sorted(slots):
        if parts and slot == parts[-1][1] + 1:
            parts[-1][1] = slot
        else:
            parts.append([slot, slot])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def parse_ranges(text: str) -> set[int]:
    """The slots in a text of `ranges`."""
    parts = [_range(part.split("-")) for part in text.split(", ") if part]
    return {slot for low, high in parts for slot in range(low, high + 1)}


def _flags(node: Mapping[str, Any]) -> list[str]:
    return str(node["flags"]).split(",")


def _range(part: list[str]) -> tuple[int, int]:
    return int(part[0]), int(part[-1])
