"""Backs up every stream of every JetStream account by the snapshot API, including key-value buckets and object stores.

Each stream has a folder with `stream.tar.s2` and `backup.json`, the format of the `nats` tool (`nats stream restore`).

A stream whose state has not moved since the newest backup is not stored again: the backup refers to the earlier one.

Consumers are saved a second time as JSON. Servers up to 2.14 silently leave a consumer out of the snapshot if the
stream's leader has no replica of it (nats-io/nats-server#7829).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from archive.backup.folders import folder_name
from archive.backup.manifest import Consistency, Engine, Manifest, Measure
from archive.backup.references import References
from archive.backup.writer import SetWriter
from archive.catalogue.chain import open_chain
from archive.streams.spool import require_room
from components.access import Access
from components.base import BackupContent
from components.nats.client import (
    CLIENT_PORT,
    KEY,
    NO_STREAM,
    SECRET,
    STATEFULSET,
    USER,
    Account,
    AccountRefused,
    Incomplete,
    Refused,
    Unanswered,
    account,
    call,
    listed,
    some,
)
from components.nats.fingerprint import consumer_expires, measure_configuration, measures
from components.nats.resources import LARGEST, is_probe, numbers
from components.nats.streams.consumers import LEFT_OUT, consumers_of, with_progress
from components.nats.streams.messages import LIFETIME, OWN_TIMES, Silent, expires, measure_messages
from components.nats.streams.snapshot import Snapshot
from components.nats.streams.state import state_of
from config.sections.backups import NatsAccount
from errors import PermanentError, TemporaryError

NOT_COVERED = (
    "messages outside JetStream, ephemeral consumers, and messages of a stream with retention `interest` that only "
    "those consumers keep",
    "accounts, users, keys and the servers' configuration (Helm values and Secrets: the backup of `platform`)",
    "a common recovery point of several streams: each is consistent in itself. A mirror or a stream with sources "
    "continues after the last message it holds",
    "redeliveries in progress: after a restore, messages above a consumer's last acknowledged one are delivered again",
    "message ids for deduplication: a message published again right after a restore may be stored twice",
    "messages older than their `Nats-TTL` in a stream that keeps them (the backup names such streams)",
)
ALLOWED = OWN_TIMES[0]  # the setting that allows a lifetime of messages
# Servers before this version cannot take a snapshot of a stream in memory.
MEMORY_SINCE = (2, 15)
# A consumer without a leader for so long has lost its servers. Each stream waits for it.
LEADER_SECONDS = 10.0
# Space for tar headers and indexes. Compression with s2 usually makes a snapshot smaller than its stream.
SPOOL_MARGIN = 64 << 20


def back_up(access: Access, writer: SetWriter) -> BackupContent:
    """Take one backup of all streams of all accounts.

    Raises:
        TemporaryError: JetStream has no leader, or a snapshot was interrupted.
        PermanentError: the platform's user may not use JetStream.
    """
    days = access.settings.backup.nats.full_every_days
    chain = open_chain(writer.earlier, days, interval=writer.interval)
    references = References(writer, chain)
    own = NatsAccount(user=USER, secret=SECRET, key=KEY)
    fingerprint: list[Measure] = []
    consistency: list[Consistency] = []
    missing: list[str] = []
    streams: dict[str, Any] = {}
    version = identity = ""
    for declared in (own, *access.settings.backup.nats.accounts):
        servers = access.endpoints(
            STATEFULSET, access.settings.components.nats.members, CLIENT_PORT
        )
        try:
            with account(access, servers, declared) as connected:
                info: Any = connected.client._server_info
                version, identity = str(info["version"]), str(info.get("cluster", ""))
                for name, result in _streams(access, writer, references, connected, version):
                    if isinstance(result, str):
                        missing.append(f"stream {name}: {result}")
                        continue
                    missing += [f"stream {name}: {reason}" for reason in result.missing]
                    fingerprint += result.measures
                    consistency.append(result.consistency)
                    streams[name] = result.layout
        except AccountRefused as exc:
            if declared is own:
                raise
            missing.append(f"account {declared.user}: {exc}")
    if missing and not streams:
        raise TemporaryError(f"no stream of NATS could be stored: {'; '.join(missing)}", delay=30)
    return BackupContent(
        engine=Engine(name="NATS JetStream", version=version, identity=identity),
        topology={"streams": streams},
        consistency=tuple(consistency),
        fingerprint=tuple(fingerprint),
        not_covered=NOT_COVERED,
        missing=tuple(missing),
        needs=references.needs,
        states=references.states,
    )


@dataclass(frozen=True)
class StreamBackup:
    """The backup of one stream.

    Attributes:
        measures: its fingerprint.
        consistency: its recovery point.
        layout: its entry in the manifest's topology.
        missing: what the backup lacks, with the reason.
        ages: whether a later backup could lack something although the state of the stream is the same.
    """

    measures: list[Measure]
    consistency: Consistency
    layout: dict[str, Any]
    missing: list[str]
    ages: bool = False


def _streams(
    access: Access,
    writer: SetWriter,
    references: References,
    connected: Account,
    version: str,
) -> Iterator[tuple[str, StreamBackup | str]]:
    """Store the streams of an account. Yields each folder with the stream's backup, or the reason why it has none.

    A stream that JetStream does not answer for is tried once more after the others.

    Raises:
        AccountRefused: the account has no JetStream.
    """
    try:
        names = _names(connected, access.timeout_seconds)
    except Refused as exc:
        raise AccountRefused(str(exc)) from exc
    for final_attempt in (False, True):
        postponed: list[str] = []
        for name in names:
            folder = f"{connected.user}/{folder_name(name)}"
            try:
                result = _stream(access, writer, references, connected, name, version)
            except Refused as exc:
                writer.drop(f"{folder}/")
                if exc.code == NO_STREAM:  # a client deleted it
                    continue
                result = exc.reason
            except Unanswered as exc:
                writer.drop(f"{folder}/")
                # fails if JetStream itself does not answer
                connected.run(call(connected.client, "INFO", timeout=access.timeout_seconds))
                if not final_attempt:
                    postponed.append(name)
                    continue
                result = str(exc)
            yield folder, result
        names = postponed


def _stream(
    access: Access,
    writer: SetWriter,
    references: References,
    account: Account,
    name: str,
    version: str,
) -> StreamBackup | str:
    """Store one stream unless it is unchanged, or return the reason why it cannot be stored."""
    begun, unit = datetime.now(UTC), f"stream {account.user}/{name}"
    consumers, leaderless = _consumers(account, name, LEADER_SECONDS)
    before = state_of(_info(access, account, name), consumers, version)
    if not leaderless and (held := references.unchanged(unit, before)):
        return _as_held(held, unit, f"{account.user}/{folder_name(name)}", before, begun)
    result = _store(access, writer, account, name, version, begun, consumers, leaderless)
    if isinstance(result, StreamBackup) and not leaderless and not result.ages:
        after = _consumers(account, name, 0)[0]
        references.stored(unit, before, state_of(_info(access, account, name), after, version))
    return result


def _info(access: Access, account: Account, name: str) -> dict[str, Any]:
    subject = f"STREAM.INFO.{name}"
    return account.run(call(account.client, subject, timeout=access.timeout_seconds))


def _as_held(
    held: Manifest, unit: str, folder: str, state: dict[str, Any], begun: datetime
) -> StreamBackup:
    """The backup of a stream that an earlier backup holds, and that has not changed since."""
    point = f"sequence {state['state']['last_seq']}"
    return StreamBackup(
        [measure for measure in held.fingerprint if measure.unit == unit],
        Consistency(unit=unit, point=point, begun=begun, ended=datetime.now(UTC)),
        held.topology["streams"][folder],
        [],
    )


def _store(
    access: Access,
    writer: SetWriter,
    account: Account,
    name: str,
    version: str,
    begun: datetime,
    consumers: list[dict[str, Any]],
    leaderless: list[str],
) -> StreamBackup | str:
    """Store one stream, or return the reason why it cannot be stored.

    Args:
        access: addresses and settings.
        writer: of the backup.
        account: the stream's account.
        name: its name.
        version: of the server.
        begun: before its consumers were listed.
        consumers: its consumers.
        leaderless: names of its consumers that have no leader.
    """
    unit, folder = f"stream {account.user}/{name}", f"{account.user}/{folder_name(name)}"
    snapshot = Snapshot(
        account.loop, account.client, name, min(access.settings.backup.stall_seconds, 60)
    )
    try:
        snapshot.begin()
    except Refused as exc:
        info = _info(access, account, name)
        if info["config"].get("storage") == "memory" and numbers(version) < MEMORY_SINCE:
            return f"it is kept in memory, and servers before 2.15 cannot take a snapshot of such a stream: {exc}"
        raise
    size = int(snapshot.state["bytes"])
    try:
        require_room(writer.spool, size + SPOOL_MARGIN)
    except PermanentError as exc:  # other streams may fit
        return str(exc)
    with writer.spooled(snapshot, size + SPOOL_MARGIN) as spool:
        writer.add(f"{folder}/stream.tar.s2", unit, "nats stream backup", spool, size)
    consistency = Consistency(
        unit=unit,
        point=f"sequence {snapshot.state['last_seq']}",
        begun=begun,
        ended=datetime.now(UTC),
    )
    writer.add_json(
        f"{folder}/backup.json", unit, {"config": snapshot.config, "state": snapshot.state}
    )
    progress = with_progress(consumers, _consumers(account, name, 0)[0])
    writer.add_json(f"{folder}/consumers.json", unit, progress)
    consumer_count = int(snapshot.state.get("consumer_count", 0))
    if consumer_count > len(consumers) + len(leaderless):
        raise Unanswered(f"{unit} has {consumer_count} consumers but lists {len(consumers)}")
    try:
        stats = account.run(measure_messages(account.client, name, snapshot.state, apart=True))
    except Silent as exc:  # the stream is in use: messages have left it since the snapshot
        stats = exc.stats
    if not stats.expiring and not expires(snapshot.config):
        stats = replace(stats, apart=False)
    layout = {
        "replicas": snapshot.config.get("num_replicas", 1),
        "consumers": [c["name"] for c in consumers],
        LEFT_OUT: _left_out(snapshot.config, consumers, version),
        LARGEST: stats.largest,
    }
    consumers_apart = any(consumer_expires(c) for c in consumers if c["config"].get("durable_name"))
    fingerprint = measures(unit, snapshot.state, consumers, stats, consumers_apart=consumers_apart)
    fingerprint.append(measure_configuration(unit, snapshot.config, snapshot.config))
    missing = []
    if leaderless:
        missing.append(f"no leader answers for its consumers {some(leaderless)}")
    if stats.overdue and not snapshot.config.get(ALLOWED) and numbers(version) >= MEMORY_SINCE:
        missing.append(
            f"{stats.overdue} messages are older than their {LIFETIME}: this stream keeps them, no restore does"
        )
    # such messages become overdue by themselves, although nothing of the stream's state moves
    ages = bool(stats.expiring) and not snapshot.config.get(ALLOWED)
    return StreamBackup(fingerprint, consistency, layout, missing, ages)


def _consumers(
    account: Account, stream: str, patience: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """A stream's consumers, and the names of consumers without a leader."""
    try:
        return consumers_of(account, stream, patience=patience), []
    except Incomplete as exc:
        return exc.found, exc.missing


def _left_out(config: dict[str, Any], consumers: list[dict[str, Any]], version: str) -> list[str]:
    """Names of consumers that the snapshot may lack; a restore creates them from `consumers.json`."""
    if numbers(version) >= MEMORY_SINCE:  # these servers ask each consumer's own leader
        return []
    replicas = int(config.get("num_replicas", 1))
    return [
        str(c["name"])
        for c in consumers
        if c["config"].get("durable_name")
        and 0 < int(c["config"].get("num_replicas") or replicas) < replicas
    ]


def _names(account: Account, timeout: float) -> list[str]:
    names: list[Any] = account.run(
        listed(account.client, "STREAM.NAMES", "streams", timeout=timeout)
    )
    return [str(name) for name in names if not is_probe(str(name))]
