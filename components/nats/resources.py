"""Limits and usage of JetStream's servers and accounts, and what a stream of a backup needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.access import Access, Endpoint
from components.nats.client import MONITOR_PORT, STATEFULSET
from components.questions import PROBE, ask_members, words
from errors import TemporaryError

LARGEST = "largest_message"  # key of a stream in a manifest's topology; bytes


@dataclass
class Room:
    """A server's storage of one kind (file or memory), in bytes.

    Attributes:
        limit: for all streams together; negative for no limit.
        used: bytes in use.
        reserved: bytes reserved by streams with `max_bytes`.
    """

    limit: int
    used: int
    reserved: int

    def free(self, replaced: LiveStream | None = None) -> int:
        """Bytes that can be added.

        Args:
            replaced: a stream on this server that is deleted first.
        """
        if self.limit < 0:
            return 1 << 62
        used, reserved = (replaced.size, replaced.reserved) if replaced else (0, 0)
        return self.limit - max(self.used - used, self.reserved - reserved)


@dataclass
class Server:
    """A server with JetStream, from its `/varz`.

    Attributes:
        name: pod name.
        version: NATS version.
        max_payload: bytes of the largest message that it accepts.
        max_ack_pending: the limit for a consumer; 0 for no limit.
        level: level of JetStream's API.
        cluster: name of its cluster.
        tags: its placement tags, in lower case.
        rooms: kind of storage → room.
    """

    name: str
    version: tuple[int, ...]
    max_payload: int
    max_ack_pending: int
    level: int
    cluster: str
    tags: frozenset[str]
    rooms: dict[str, Room]


@dataclass(frozen=True)
class LiveStream:
    """What a live stream uses on each of its servers.

    Attributes:
        size: bytes.
        reserved: bytes, by `max_bytes`.
        servers: names of the servers with a replica.
        storage: `file` or `memory`.
        subjects: the subjects of its messages.
        replicas: number of replicas.
    """

    size: int
    reserved: int
    servers: frozenset[str]
    storage: str
    subjects: tuple[str, ...]
    replicas: int


@dataclass(frozen=True)
class StoredStream:
    """A stream of a backup that is to be restored.

    Attributes:
        unit: the stream's name in the manifest.
        config: its configuration.
        state: its state at the snapshot.
        consumers: its consumers, as JetStream listed them.
        largest: bytes of its largest message; 0 if the backup does not say.
        version: version of the server that took the snapshot.
    """

    unit: str
    config: Mapping[str, Any]
    state: Mapping[str, Any]
    consumers: Sequence[Mapping[str, Any]] = ()
    largest: int = 0
    version: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The stream's name."""
        return str(self.config["name"])

    @property
    def size(self) -> int:
        """Bytes of one replica."""
        return int(self.state.get("bytes", 0))

    @property
    def replicas(self) -> int:
        """The number of replicas after the restore."""
        return int(self.config.get("num_replicas") or 1)

    @property
    def storage(self) -> str:
        """`file` or `memory`."""
        return str(self.config.get("storage", "file"))


@dataclass
class Account:
    """Limits and usage of an account.

    Attributes:
        info: answer of `$JS.API.INFO`; the usage in it is updated here.
        streams: live streams by name, without the gates' streams.
    """

    info: dict[str, Any]
    streams: dict[str, LiveStream] = field(default_factory=dict)

    def tier(self, replicas: int) -> tuple[dict[str, Any], int]:
        """The usage, with `limits`, for streams with this number of replicas, and the factor of its byte limits.

        An account has limits for all streams, or one tier of limits for each number of replicas (`selectLimits` and
        `limitsExceeded`, server/jetstream.go).
        """
        tiers = self.info.get("tiers")
        return (tiers.get(f"R{replicas}") or {}, replicas) if tiers else (self.info, 1)


def servers_of(access: Access) -> list[Server]:
    """The servers that run JetStream now.

    Raises:
        TemporaryError: no server answers.
    """
    members = access.settings.components.nats.members
    monitors = access.endpoints(STATEFULSET, members, MONITOR_PORT)

    def read(server: Endpoint) -> Mapping[str, Any]:
        answer = access.http.get(f"http://{server.url}/varz").raise_for_status()
        varz: Mapping[str, Any] = answer.json()
        return varz

    answers = ask_members(monitors, read)
    servers = [server_of(varz) for varz in answers.good.values() if varz.get("jetstream")]
    if not servers:
        raise TemporaryError(
            f"no server of NATS returned its limits: {words(answers.bad)}", delay=20
        )
    return servers


def server_of(varz: Mapping[str, Any]) -> Server:
    """A server from its `/varz` (`Varz` in server/monitor.go)."""
    jetstream = varz["jetstream"]
    config, stats = jetstream.get("config", {}), jetstream.get("stats", {})

    def room(kind: str) -> Room:
        return Room(
            int(config.get(f"max_{kind}", -1)),
            int(stats.get(kind, 0)),
            int(stats.get(f"reserved_{kind}", 0)),
        )

    return Server(
        name=str(varz["server_name"]),
        version=numbers(str(varz["version"])),
        max_payload=int(varz["max_payload"]),
        max_ack_pending=int(jetstream.get("limits", {}).get("max_ack_pending", 0)),
        level=int(stats.get("api", {}).get("level", 0)),
        cluster=str(varz.get("cluster", {}).get("name", "")),
        tags=frozenset(str(tag).lower() for tag in varz.get("tags") or ()),
        rooms={"file": room("storage"), "memory": room("memory")},
    )


def account_of(
    info: Mapping[str, Any], streams: Iterable[Mapping[str, Any]], leaderless: Iterable[str] = ()
) -> Account:
    """An account from JetStream's answers.

    Args:
        info: answer of `INFO`.
        streams: answer of `STREAM.LIST`.
        leaderless: names of streams without a leader.
    """
    account = Account(dict(info))
    for name in leaderless:
        account.streams[name] = LiveStream(0, 0, frozenset(), "file", (), 1)
    for stream in streams:
        config, cluster = stream["config"], stream.get("cluster") or {}
        if is_probe(str(config["name"])):  # it exists for a tenth of a second
            continue
        peers = [cluster.get("leader"), *(peer["name"] for peer in cluster.get("replicas") or [])]
        account.streams[str(config["name"])] = LiveStream(
            size=int(stream["state"]["bytes"]),
            reserved=max(0, int(config.get("max_bytes") or 0)),
            servers=frozenset(str(peer) for peer in peers if peer),
            storage=str(config.get("storage", "file")),
            subjects=subjects_of(config),
            replicas=int(config.get("num_replicas") or 1),
        )
    return account


def is_probe(stream: str) -> bool:
    """Whether a stream belongs to a gate's probe."""
    return stream == PROBE or stream.startswith(f"{PROBE}-")


def numbers(version: str) -> tuple[int, ...]:
    """Major and minor of a version."""
    return tuple(int(part) for part in version.split("-")[0].split(".")[:2])


def subjects_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """A stream's subjects: by default its name, or none if it is a mirror or has sources (`checkStreamCfg`)."""
    follows = config.get("mirror") or config.get("sources")
    return tuple(config.get("subjects") or (() if follows else (config["name"],)))
