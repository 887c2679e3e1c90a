"""Why the live JetStream would refuse streams of a backup. It is asked before the old ones are deleted.

What JetStream checks of a configuration and of an account's limits it is asked itself: a request to restore a stream
that exists is checked first and then refused for its name, with nothing changed (jsStreamRestoreRequest and
jsClusteredStreamRestoreRequest, server/jetstream_api.go and jetstream_cluster.go of 2.10 to 2.15). What it checks
later, behind the deletion, is computed: room, servers for the replicas, sizes of messages, consumers, overlapping
subjects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from components.nats.client import Refused
from components.nats.resources import Account, LiveStream, Server, StoredStream, subjects_of
from errors import TemporaryError

# `RestoreStreamV2` in server/stream_backup.go refuses messages beyond it, and a stream may hold such from before it was
# lowered. The other limits of a stream refuse nothing that it holds (measured on 2.15.1).
SET_LATER = ("max_msg_size",)
EXISTS = 10130  # the last thing that a request to restore is refused for, JSStreamNameExistRestoreFailedErr
LEVEL = "_nats.req.level"  # of JetStream's API, that a stream's server must have (ADR-44)
ARCHIVE_SINCE = (
    2,
    15,
)  # from then on snapshots have a form that older servers do not read (ADR-63)


def refusals(
    stored: Iterable[StoredStream],
    account: Account,
    servers: list[Server],
    dry_run: Callable[[StoredStream, Mapping[str, Any]], None],
) -> list[str]:
    """Why streams would be refused that are restored into an account one after the other: `UNIT: reason` each.

    Args:
        stored: in their order.
        account: theirs; changed to what it will have.
        servers: changed in the same way.
        dry_run: asks JetStream to restore a stream that is there, with a configuration; raises `Refused`.
    """
    found = []
    for one in stored:
        reasons = [
            *_too_large(one, servers),
            *_too_new(one, servers),
            *_consumers(one, account, servers),
            *_overlaps(one, account),
            *_account_is_full(one, account),
            *_servers_are_full(one, account, servers),
            *_refused_in_dry_run(one, account, dry_run),
        ]
        found += [f"{one.unit}: {reason}" for reason in reasons]
        if not reasons:
            _count_as_restored(one, account, servers)
    return found


def restored_first(config: Mapping[str, Any]) -> dict[str, Any]:
    """A stream's configuration as a live restore sends it, before the update that gives it the rest."""
    left = {key: value for key, value in config.items() if key not in ("placement", *SET_LATER)}
    return {**left, "num_replicas": 1}


def overlap(one: str, other: str) -> bool:
    """Whether a message may have a subject of both (`SubjectsCollide`, server/sublist.go)."""
    mine, theirs = one.split("."), other.split(".")
    for left, right in zip(mine, theirs, strict=False):
        if ">" in (left, right):
            return True
        if left != right and "*" not in (left, right):
            return False
    return len(mine) == len(theirs)


# ---------------------------------------------------------------------- reasons
def _too_large(one: StoredStream, servers: list[Server]) -> Iterator[str]:
    most = min(server.max_payload for server in servers)
    if one.largest > most:
        yield f"it has a message of {one.largest} bytes, but the servers accept {most} (max_payload)"


def _too_new(one: StoredStream, servers: list[Server]) -> Iterator[str]:
    oldest = min(server.version for server in servers)
    if one.version >= ARCHIVE_SINCE > oldest:
        yield f"its snapshot is from NATS {_dotted(one.version)}, which {_dotted(oldest)} cannot read"
    level = int((one.config.get("metadata") or {}).get(LEVEL) or 0)
    most = min(server.level for server in servers)
    if level > most:
        yield f"it needs JetStream API level {level}, but the servers have {most}"


def _consumers(one: StoredStream, account: Account, servers: list[Server]) -> Iterator[str]:
    limits = account.tier(one.replicas)[0].get("limits") or {}
    limited = [server.max_ack_pending for server in servers] + [limits.get("max_ack_pending", 0)]
    most = min((int(limit) for limit in limited if int(limit) > 0), default=0)
    for consumer in one.consumers:
        pending = int(consumer["config"].get("max_ack_pending") or 0)
        if most and pending > most:
            yield f"consumer {consumer['name']} has max_ack_pending {pending}, but {most} is the limit"


def _overlaps(one: StoredStream, account: Account) -> Iterator[str]:
    for name, other in account.streams.items():
        if name == one.name:
            continue
        for mine in subjects_of(one.config):
            for theirs in other.subjects:
                if overlap(mine, theirs):
                    yield f"its subject {mine} overlaps with {theirs} of stream {name}"
                    return


def _account_is_full(one: StoredStream, account: Account) -> Iterator[str]:
    usage, multiple = account.tier(one.replicas)
    limits = usage.get("limits") or {}
    if not limits:
        yield f"the account has no limits for streams with {one.replicas} replicas"
        return
    streams = int(limits.get("max_streams", -1))
    if one.name not in account.streams and 0 < streams <= int(usage.get("streams", 0)):
        yield f"the account may have {streams} streams and has {usage['streams']}"
    kind = "memory" if one.storage == "memory" else "storage"
    limit, held = int(limits.get(f"max_{kind}", -1)), account.streams.get(one.name)
    gone = held.size * held.replicas if held and held.storage == one.storage else 0
    after = int(usage.get(kind, 0)) - gone + one.size * one.replicas
    if 0 <= limit * multiple < after:
        yield f"the account may store {limit * multiple} bytes ({kind}) and would use {after}"


def _servers_are_full(one: StoredStream, account: Account, servers: list[Server]) -> Iterator[str]:
    placement = one.config.get("placement") or {}
    tags = {str(tag).lower() for tag in placement.get("tags") or ()}
    named = [
        server
        for server in servers
        if tags <= server.tags and placement.get("cluster") in (None, "", server.cluster)
    ]
    if len(named) < one.replicas:
        where = f" where it has to be placed ({placement})" if placement else ""
        yield f"it has {one.replicas} replicas, and {len(named)} servers with JetStream answer{where}"
        return
    free = {server.name: _free(one, account, server) for server in named}
    able = [name for name, size in free.items() if size >= _required_bytes(one)]
    if len(able) < one.replicas:
        rooms = ", ".join(f"{name} has {max(0, size)}" for name, size in sorted(free.items()))
        yield f"it needs {_required_bytes(one)} bytes on {one.replicas} servers ({one.storage}): {rooms}"


def _refused_in_dry_run(
    one: StoredStream, account: Account, dry_run: Callable[[StoredStream, Mapping[str, Any]], None]
) -> Iterator[str]:
    if one.name not in account.streams:
        return  # it would begin; and nothing is lost where there is nothing
    for config in (restored_first(one.config), one.config):
        try:
            dry_run(one, config)
        except Refused as exc:
            if exc.unavailable:
                raise TemporaryError(str(exc), delay=10) from exc
            yield exc.words
            return


# ---------------------------------------------------------------------- inside
def _count_as_restored(one: StoredStream, account: Account, servers: list[Server]) -> None:
    """Count a stream as restored."""
    held = account.streams.get(one.name)
    roomy = sorted(servers, key=lambda server: -_free(one, account, server))
    reserved = max(0, int(one.config.get("max_bytes") or 0))
    for server in servers:
        room = server.rooms[one.storage]
        if held and server.name in held.servers and held.storage == one.storage:
            room.used -= held.size
            room.reserved -= held.reserved
    for server in roomy[: one.replicas]:
        server.rooms[one.storage].used += one.size
        server.rooms[one.storage].reserved += reserved
    usage, kind = account.tier(one.replicas)[0], "memory" if one.storage == "memory" else "storage"
    gone = held.size * held.replicas if held and held.storage == one.storage else 0
    usage[kind] = int(usage.get(kind, 0)) - gone + one.size * one.replicas
    usage["streams"] = int(usage.get("streams", 0)) + (0 if held else 1)
    placed = frozenset(server.name for server in roomy[: one.replicas])
    account.streams[one.name] = LiveStream(
        one.size, reserved, placed, one.storage, subjects_of(one.config), one.replicas
    )


def _required_bytes(one: StoredStream) -> int:
    return max(one.size, int(one.config.get("max_bytes") or 0))


def _free(one: StoredStream, account: Account, server: Server) -> int:
    held = account.streams.get(one.name)
    gone = held and server.name in held.servers and held.storage == one.storage
    return server.rooms[one.storage].free(held if gone else None)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
