"""Finds out, before the old streams are deleted, why the live JetStream would refuse streams of a backup.

A dry run asks JetStream itself about the configuration and the account's limits. A request to restore a stream that
exists is checked first and then refused for its name; nothing changes (jsStreamRestoreRequest and
jsClusteredStreamRestoreRequest, server/jetstream_api.go and jetstream_cluster.go of 2.10 to 2.15).

JetStream checks the rest only after the deletion, so it is computed here: room, servers for the replicas, sizes of
messages, consumers, overlapping subjects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from components.nats.client import Refused
from components.nats.resources import Account, LiveStream, Server, StoredStream, subjects_of
from errors import TemporaryError

# `RestoreStreamV2` in server/stream_backup.go refuses larger messages. A stream may hold some, stored before the limit
# was lowered. No other limit of a stream refuses messages that it holds (measured on 2.15.1).
SET_LATER = ("max_msg_size",)
EXISTS = 10130  # JSStreamNameExistRestoreFailedErr: a request to restore fails with it when all other checks pass
LEVEL = "_nats.req.level"  # the level of JetStream's API that a stream needs (ADR-44)
# Snapshots of this version and later have a format that older servers cannot read (ADR-63).
ARCHIVE_SINCE = (2, 15)


def refusals(
    stored: Iterable[StoredStream],
    account: Account,
    servers: list[Server],
    dry_run: Callable[[StoredStream, Mapping[str, Any]], None],
) -> list[str]:
    """Why JetStream would refuse streams that are restored one after the other: a line `UNIT: reason` each.

    Args:
        stored: the backup's streams, in the order of the restore.
        account: their account; each accepted stream is added to it.
        servers: each accepted stream is added to their usage.
        dry_run: asks JetStream to restore an existing stream with a configuration; raises `Refused`.
    """
    lines = []
    for stream in stored:
        reasons = [
            *_too_large(stream, servers),
            *_too_new(stream, servers),
            *_consumers(stream, account, servers),
            *_overlaps(stream, account),
            *_account_is_full(stream, account),
            *_servers_are_full(stream, account, servers),
            *_refused_in_dry_run(stream, account, dry_run),
        ]
        lines += [f"{stream.unit}: {reason}" for reason in reasons]
        if not reasons:
            _count_as_restored(stream, account, servers)
    return lines


def restored_first(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that a live restore sends first; an update sets the rest afterwards."""
    initial = {key: value for key, value in config.items() if key not in ("placement", *SET_LATER)}
    return {**initial, "num_replicas": 1}


def overlap(subject: str, other_subject: str) -> bool:
    """Whether one message can match both subjects (`SubjectsCollide`, server/sublist.go)."""
    tokens, other_tokens = subject.split("."), other_subject.split(".")
    for token, other_token in zip(tokens, other_tokens, strict=False):
        if ">" in (token, other_token):
            return True
        if token != other_token and "*" not in (token, other_token):
            return False
    return len(tokens) == len(other_tokens)


# ---------------------------------------------------------------------- reasons
def _too_large(stream: StoredStream, servers: list[Server]) -> Iterator[str]:
    limit = min(server.max_payload for server in servers)
    if stream.largest > limit:
        yield f"it has a message of {stream.largest} bytes, but the servers accept {limit} (max_payload)"


def _too_new(stream: StoredStream, servers: list[Server]) -> Iterator[str]:
    oldest = min(server.version for server in servers)
    if stream.version >= ARCHIVE_SINCE > oldest:
        yield f"its snapshot is from NATS {_dotted(stream.version)}, which {_dotted(oldest)} cannot read"
    level = int((stream.config.get("metadata") or {}).get(LEVEL) or 0)
    supported_level = min(server.level for server in servers)
    if level > supported_level:
        yield f"it needs JetStream API level {level}, but the servers have {supported_level}"


def _consumers(stream: StoredStream, account: Account, servers: list[Server]) -> Iterator[str]:
    limits = account.tier(stream.replicas)[0].get("limits") or {}
    limited = [server.max_ack_pending for server in servers] + [limits.get("max_ack_pending", 0)]
    lowest_limit = min((int(limit) for limit in limited if int(limit) > 0), default=0)
    for consumer in stream.consumers:
        pending = int(consumer["config"].get("max_ack_pending") or 0)
        if lowest_limit and pending > lowest_limit:
            yield f"consumer {consumer['name']} has max_ack_pending {pending}, but {lowest_limit} is the limit"


def _overlaps(stream: StoredStream, account: Account) -> Iterator[str]:
    for name, live_stream in account.streams.items():
        if name == stream.name:
            continue
        for mine in subjects_of(stream.config):
            for theirs in live_stream.subjects:
                if overlap(mine, theirs):
                    yield f"its subject {mine} overlaps with {theirs} of stream {name}"
                    return


def _account_is_full(stream: StoredStream, account: Account) -> Iterator[str]:
    usage, multiple = account.tier(stream.replicas)
    limits = usage.get("limits") or {}
    if not limits:
        yield f"the account has no limits for streams with {stream.replicas} replicas"
        return
    streams = int(limits.get("max_streams", -1))
    if stream.name not in account.streams and 0 < streams <= int(usage.get("streams", 0)):
        yield f"the account may have {streams} streams and has {usage['streams']}"
    kind = "memory" if stream.storage == "memory" else "storage"
    limit, live_stream = int(limits.get(f"max_{kind}", -1)), account.streams.get(stream.name)
    freed_bytes = (
        live_stream.size * live_stream.replicas
        if live_stream and live_stream.storage == stream.storage
        else 0
    )
    total = int(usage.get(kind, 0)) - freed_bytes + stream.size * stream.replicas
    if 0 <= limit * multiple < total:
        yield f"the account may store {limit * multiple} bytes ({kind}) and would use {total}"


def _servers_are_full(
    stream: StoredStream, account: Account, servers: list[Server]
) -> Iterator[str]:
    placement = stream.config.get("placement") or {}
    tags = {str(tag).lower() for tag in placement.get("tags") or ()}
    eligible = [
        server
        for server in servers
        if tags <= server.tags and placement.get("cluster") in (None, "", server.cluster)
    ]
    if len(eligible) < stream.replicas:
        place = f" where it has to be placed ({placement})" if placement else ""
        yield f"it has {stream.replicas} replicas, and {len(eligible)} servers with JetStream answer{place}"
        return
    free = {server.name: _free(stream, account, server) for server in eligible}
    able = [name for name, size in free.items() if size >= _required_bytes(stream)]
    if len(able) < stream.replicas:
        rooms = ", ".join(f"{name} has {max(0, size)}" for name, size in sorted(free.items()))
        yield f"it needs {_required_bytes(stream)} bytes on {stream.replicas} servers ({stream.storage}): {rooms}"


def _refused_in_dry_run(
    stream: StoredStream,
    account: Account,
    dry_run: Callable[[StoredStream, Mapping[str, Any]], None],
) -> Iterator[str]:
    if stream.name not in account.streams:
        return  # the restore would really begin; there is no old stream that could be lost
    for config in (restored_first(stream.config), stream.config):
        try:
            dry_run(stream, config)
        except Refused as exc:
            if exc.unavailable:
                raise TemporaryError(str(exc), delay=10) from exc
            yield exc.reason
            return


# ---------------------------------------------------------------------- internal
def _count_as_restored(stream: StoredStream, account: Account, servers: list[Server]) -> None:
    """Add a stream to the usage of its account and servers, in place of the live stream of its name."""
    live_stream = account.streams.get(stream.name)
    roomy = sorted(servers, key=lambda server: -_free(stream, account, server))
    reserved = max(0, int(stream.config.get("max_bytes") or 0))
    for server in servers:
        room = server.rooms[stream.storage]
        if (
            live_stream
            and server.name in live_stream.servers
            and live_stream.storage == stream.storage
        ):
            room.used -= live_stream.size
            room.reserved -= live_stream.reserved
    for server in roomy[: stream.replicas]:
        server.rooms[stream.storage].used += stream.size
        server.rooms[stream.storage].reserved += reserved
    usage, kind = (
        account.tier(stream.replicas)[0],
        "memory" if stream.storage == "memory" else "storage",
    )
    freed_bytes = (
        live_stream.size * live_stream.replicas
        if live_stream and live_stream.storage == stream.storage
        else 0
    )
    usage[kind] = int(usage.get(kind, 0)) - freed_bytes + stream.size * stream.replicas
    usage["streams"] = int(usage.get("streams", 0)) + (0 if live_stream else 1)
    placed = frozenset(server.name for server in roomy[: stream.replicas])
    account.streams[stream.name] = LiveStream(
        stream.size, reserved, placed, stream.storage, subjects_of(stream.config), stream.replicas
    )


def _required_bytes(stream: StoredStream) -> int:
    return max(stream.size, int(stream.config.get("max_bytes") or 0))


def _free(stream: StoredStream, account: Account, server: Server) -> int:
    live_stream = account.streams.get(stream.name)
    frees_room = (
        live_stream and server.name in live_stream.servers and live_stream.storage == stream.storage
    )
    return server.rooms[stream.storage].free(live_stream if frees_room else None)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
