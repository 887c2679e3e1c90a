"""What JetStream's servers and accounts may hold and hold, and what a stream of a backup would take of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.access import Access, Endpoint
from components.nats.client import MONITOR_PORT, STATEFULSET
from components.questions import PROBE, ask_members, words
from errors import TemporaryError

LARGEST = "largest_message"  # of a stream, in a manifest's topology: bytes


@dataclass
class Room:
    """What a server may store of a kind, in bytes.

    Attributes:
        limit: of all streams together; negative for no limit.
        used: by what is stored.
        reserved: by streams with `max_bytes`.
    """

    limit: int
    used: int
    reserved: int

    def free(self, of: LiveStream | None = None) -> int:
        """Bytes that may be added, once a stream that the server holds is away."""
        if self.limit < 0:
            return 1 << 62
        used, reserved = (of.size, of.reserved) if of else (0, 0)
        return self.limit - max(self.used - used, self.reserved - reserved)


@dataclass
class Server:
    """A server with JetStream, as its `/varz` says.

    Attributes:
        name: pod name.
        version: of NATS.
        max_payload: bytes of the largest message.
        max_ack_pending: of a consumer; 0 for no limit.
        level: of JetStream's API.
        cluster: its name.
        tags: for placement, in lower case.
        rooms: storage → room.
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
    """What a live stream takes of each of its servers.

    Attributes:
        size: bytes.
        reserved: bytes, by `max_bytes`.
        servers: that have it.
        storage: `file` or `memory`.
        subjects: that it takes messages of.
        replicas: how many of them.
    """

    size: int
    reserved: int
    servers: frozenset[str]
    storage: str
    subjects: tuple[str, ...]
    replicas: int


@dataclass(frozen=True)
class StoredStream:
    """A stream of a backup that is about to be restored.

    Attributes:
        unit: its name in the manifest.
        config: of the stream.
        state: of the stream.
        consumers: as JetStream listed them.
        largest: bytes of its largest message; 0 in sets that do not say.
        version: of the server that made the snapshot.
    """

    unit: str
    config: Mapping[str, Any]
    state: Mapping[str, Any]
    consumers: Sequence[Mapping[str, Any]] = ()
    largest: int = 0
    version: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Of the stream."""
        return str(self.config["name"])

    @property
    def size(self) -> int:
        """Bytes of one replica."""
        return int(self.state.get("bytes", 0))

    @property
    def replicas(self) -> int:
        """How many there will be."""
        return int(self.config.get("num_replicas") or 1)

    @property
    def storage(self) -> str:
        """`file` or `memory`."""
        return str(self.config.get("storage", "file"))


@dataclass
class Account:
    """What an account may have and has.

    Attributes:
        info: answer of `$JS.API.INFO`; usage in it is changed.
        streams: live ones by name, without those of gates.
    """

    info: dict[str, Any]
    streams: dict[str, LiveStream] = field(default_factory=dict)

    def tier(self, replicas: int) -> tuple[dict[str, Any], int]:
        """Usage with `limits` for streams of so many replicas, and what a limit of bytes is multiplied with.

        Limits are of the whole account, or of one tier for each number of replicas (`selectLimits` and
        `limitsExceeded`, server/jetstream.go).
        """
        tiers = self.info.get("tiers")
        return (tiers.get(f"R{replicas}") or {}, replicas) if tiers else (self.info, 1)


def servers_of(access: Access) -> list[Server]:
    """The servers that run JetStream now.

    Raises:
        TemporaryError: none of them answers.
    """
    members = access.settings.components.nats.members
    monitors = access.endpoints(STATEFULSET, members, MONITOR_PORT)

    def read(server: Endpoint) -> Mapping[str, Any]:
        answer = access.http.get(f"http://{server.url}/varz").raise_for_status()
        found: Mapping[str, Any] = answer.json()
        return found

    answers = ask_members(monitors, read)
    found = [server_of(said) for said in answers.good.values() if said.get("jetstream")]
    if not found:
        raise TemporaryError(
            f"no server of NATS returned its limits: {words(answers.bad)}", delay=20
        )
    return found


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
        info: of `INFO`.
        streams: of `STREAM.LIST`.
        leaderless: streams that no server describes.
    """
    account = Account(dict(info))
    for name in leaderless:
        account.streams[name] = LiveStream(0, 0, frozenset(), "file", (), 1)
    for stream in streams:
        config, cluster = stream["config"], stream.get("cluster") or {}
        if is_probe(str(config["name"])):  # it is gone in a moment
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
    """Whether a stream is one that gates write to."""
    return stream == PROBE or stream.startswith(f"{PROBE}-")


def numbers(version: str) -> tuple[int, ...]:
    """Major and minor of a version."""
    return tuple(int(part) for part in version.split("-")[0].split(".")[:2])


def subjects_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a stream takes messages of; its name where it says nothing and follows no other (`checkStreamCfg`)."""
    follows = config.get("mirror") or config.get("sources")
    return tuple(config.get("subjects") or (() if follows else (config["name"],)))
