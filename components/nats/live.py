"""Replaces streams of the live JetStream by those of a backup.

Two streams cannot have one name, so the old stream is deleted first. Before that, the backup and the safety backup were
read to their last byte (`operations.restore.component`).

A stream is restored with one replica and scaled up afterwards. With three replicas at once a restore fails on slow
disks (nats-io/nats-server#4270).

Mirror, sources and republishing are part of the restored configuration, because a stream cannot become a mirror later
(error 10055). A restored mirror continues after the last message that it holds of its origin. The origin need not exist
yet (tried on 2.15.1).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from archive.backup.cleanup_journal import CleanupJournal
from archive.backup.manifest import Measure
from archive.backup.reader import SetReader
from archive.streams.spool import PIECE_BYTES, require_room
from components.access import Access
from components.base import Live, RunningScratch, without_fence
from components.nats.capacity import EXISTS, refusals, restored_first
from components.nats.client import (
    CLIENT_PORT,
    NO_STREAM,
    OVERLAP,
    STATEFULSET,
    Account,
    Incomplete,
    Refused,
    account,
    call_when_placed,
    listed,
)
from components.nats.fingerprint import (
    MESSAGES,
    has_configuration,
    has_expiring,
    has_expiring_consumers,
    measure_configuration,
    measured,
    measures,
)
from components.nats.resources import LARGEST, StoredStream, account_of, numbers, servers_of
from components.nats.restore import ABOUT, ARCHIVE, FORM, INTEREST, accounts, restore_stream
from components.nats.streams.consumers import (
    as_saved,
    consumers_of,
    left_out_consumers,
    lost_interest,
    make_missing_consumers,
    saved_consumers,
    taken_since,
    wait_for_consumers,
)
from components.nats.streams.messages import (
    MessageStats,
    Silent,
    expires,
    measure_messages,
    nanoseconds,
)
from config.sections.backups import NatsAccount
from errors import PermanentError

LIMITS = "limits"  # retention: only limits remove messages
FULL_AT = ("max_msgs", "max_msgs_per_subject")
CALL_SECONDS = 60.0


def units(reader: SetReader) -> dict[str, int]:
    """Streams of the backup with their sizes."""
    return {reader.unit(name): reader.size(name) for name in reader.names(FORM)}


def can_take(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[str]:
    """Why JetStream would refuse streams of a backup.

    Raises:
        TemporaryError: JetStream does not answer.
    """
    servers, lines = servers_of(access), []
    for declared, folders in _chosen(access, reader, chosen):
        stored = [_stored(reader, folder) for folder in folders]
        try:
            with _account(access, declared) as connected:
                account_now = account_of(call_it(connected, "INFO"), *_streams(connected))
                lines += refusals(stored, account_now, servers, partial(_dry_run, connected))
        except PermanentError as exc:  # the account was removed, or has no JetStream
            lines += [f"{stream.unit}: {exc}" for stream in stored]
    return lines


def replace(
    access: Access,
    served: RunningScratch | None,
    reader: SetReader,
    chosen: Iterable[str],
    cleanup: CleanupJournal,
) -> list[str]:
    """Replace live streams by those of the backup.

    Raises:
        Damaged: an artefact differs from what was stored.
        PermanentError, TemporaryError: JetStream refuses a stream.
    """
    spool, sizes = access.settings.backup.spool, units(reader)
    require_room(spool, max(sizes[unit] for unit in chosen))
    with cleanup.replacing(chosen), tempfile.TemporaryDirectory(dir=spool) as directory:
        for declared, folders in _chosen(access, reader, chosen):
            for folder in folders:
                # the whole snapshot is on this machine before the old stream is deleted
                snapshot = reader.save(f"{folder}/{ARCHIVE}", Path(directory) / "stream")
                backup = reader.json(f"{folder}/{ABOUT}")
                consumers = saved_consumers(reader, folder), left_out_consumers(reader, folder)
                # connect only now: the server closes an idle connection
                with _account(access, declared) as connected:
                    _replace(connected, backup["config"]["name"], snapshot, backup, *consumers)
    return []


def measure(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """What the live streams hold now."""
    results: list[Measure] = []
    for declared, folders in _chosen(access, reader, chosen):
        with _account(access, declared) as connected:
            for folder in folders:
                results += _measure(connected, reader, folder)
    return results


def at_saved(now: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """A live stream's state, without messages that arrived after the restore.

    Args:
        now: the state that JetStream reports.
        saved: the state in the backup.
    """
    if int(now["last_seq"]) <= int(saved["last_seq"]):
        return dict(now)
    unchanged_keys = ("last_seq", "messages", "num_subjects")
    return {**now, **{key: saved[key] for key in unchanged_keys if key in saved}}


def may_have_gone(
    info: Mapping[str, Any],
    saved: Mapping[str, Any],
    live_consumers: Iterable[dict[str, Any]],
    backup_consumers: Iterable[dict[str, Any]],
    now: int,
) -> int:
    """The largest number of messages that can have left a stream since its restore in a normal way.

    - Clients acknowledge messages of a stream with retention `workqueue` or `interest`.
    - A stream with retention `interest` drops all messages when its last consumer is deleted.
    - A full stream drops an old message for every new one.
    - A stream with `max_age` drops messages that are too old.

    Args:
        info: the stream as JetStream describes it now.
        saved: its state in the backup.
        live_consumers: its consumers now.
        backup_consumers: its consumers in the backup.
        now: time in nanoseconds since 1970.
    """
    config, state = info["config"], info["state"]
    published = max(0, int(state["last_seq"]) - int(saved["last_seq"]))
    oldest = max(0, int(state["first_seq"]) - int(saved["first_seq"]))
    age, count = int(config.get("max_age") or 0), 0
    if any(int(config.get(limit) or 0) > 0 for limit in FULL_AT):
        count += published
    elif published and int(config.get("max_bytes") or 0) > 0:
        count += oldest
    if age and nanoseconds(saved["first_ts"]) + age < now:
        count += oldest
    if config.get("retention", LIMITS) != LIMITS:
        count += taken_since(live_consumers, backup_consumers)
    if config.get("retention") == INTEREST and lost_interest(live_consumers, backup_consumers):
        count += int(saved["messages"])
    return count


LIVE = Live(
    units,
    without_fence("publishers get no acknowledgement while a stream does not exist"),
    replace,
    measure,
    can_take=can_take,
    writers="a stream does not exist from its deletion until it is restored: publishers get no acknowledgement",
)


# ---------------------------------------------------------------------- inside
def call_it(connected: Account, subject: str, body: Any = None) -> dict[str, Any]:
    """Send a request to JetStream's API."""
    return call_when_placed(connected, subject, body, timeout=CALL_SECONDS)


def _replace(
    connected: Account,
    stream: str,
    snapshot: Path,
    backup: Mapping[str, Any],
    consumers: list[dict[str, Any]],
    left_out: list[str],
) -> None:
    try:
        call_it(connected, f"STREAM.DELETE.{stream}")
    except Refused as exc:
        if exc.code != NO_STREAM:
            raise
    with snapshot.open("rb") as file:
        pieces = iter(partial(file.read, PIECE_BYTES), b"")
        restore_stream(connected, restored_first(backup["config"]), backup["state"], pieces)
    wait_for_consumers(connected, stream, consumers, left_out)
    # sets replicas, placement, and limits that some messages may exceed
    call_when_placed(
        connected, f"STREAM.UPDATE.{stream}", backup["config"], timeout=CALL_SECONDS,
        passing=OVERLAP,  # the stream of a gate's probe may overlap; it exists for a tenth of a second
    )  # fmt: skip
    make_missing_consumers(connected, backup["config"], consumers)


def _stored(reader: SetReader, folder: str) -> StoredStream:
    about, topology = reader.json(f"{folder}/{ABOUT}"), reader.manifest.topology["streams"][folder]
    return StoredStream(
        unit=reader.unit(f"{folder}/{ARCHIVE}"),
        config=about["config"],
        state=about["state"],
        consumers=saved_consumers(reader, folder),
        largest=int(topology.get(LARGEST, 0)),
        version=numbers(reader.manifest.engine.version),
    )


def _streams(connected: Account) -> tuple[list[dict[str, Any]], list[str]]:
    """An account's streams, and the names of streams without a leader."""
    listing = listed(connected.client, "STREAM.LIST", "streams", timeout=CALL_SECONDS)
    try:
        return connected.run(listing), []
    except Incomplete as exc:
        return exc.found, exc.missing


def _dry_run(connected: Account, stream: StoredStream, config: Mapping[str, Any]) -> None:
    """Ask to restore a stream that exists. JetStream checks the name last, so nothing changes.

    Raises:
        Refused: for any reason but the name.
    """
    request = {"config": config, "state": stream.state}
    try:
        call_it(connected, f"STREAM.RESTORE.{stream.name}", request)
    except Refused as exc:
        if exc.code != EXISTS:
            raise
        return
    with suppress(
        Refused
    ):  # a client deleted the stream after it was listed, so the restore really began
        call_it(connected, f"STREAM.DELETE.{stream.name}")


def _measure(connected: Account, reader: SetReader, folder: str) -> list[Measure]:
    unit = reader.unit(f"{folder}/{ARCHIVE}")
    document, backup_consumers = reader.json(f"{folder}/{ABOUT}"), saved_consumers(reader, folder)
    stream, saved = document["config"]["name"], document["state"]
    state = at_saved(call_it(connected, f"STREAM.INFO.{stream}")["state"], saved)
    stats = _seen(connected, document["config"], state, has_expiring(reader.manifest, unit))
    # asked after the messages were read, so that the consumers explain messages that have left
    info, live_consumers = (
        call_it(connected, f"STREAM.INFO.{stream}"),
        consumers_of(connected, stream),
    )
    saved_messages = measured(reader.manifest, unit, MESSAGES)
    until, missing = None, (saved_messages.count if saved_messages else 0) - stats.staying
    if (
        0
        < missing
        <= (
            removable := may_have_gone(
                info, saved, live_consumers, backup_consumers, time.time_ns()
            )
        )
    ):
        state, until = {**saved, "messages": stats.count}, stats.staying + removable
    elif stats.apart or state["last_seq"] != info["state"]["last_seq"]:
        # the measured number, not the one of the stream's state
        state = {**state, "messages": stats.count}
    consumers = as_saved(info["config"], live_consumers, backup_consumers, at_work=True)
    results = measures(
        unit,
        state,
        consumers,
        stats,
        until,
        consumers_apart=has_expiring_consumers(reader.manifest, unit),
    )
    if has_configuration(reader.manifest, unit):
        results.append(measure_configuration(unit, info["config"], document["config"]))
    return results


def _seen(
    connected: Account, config: Mapping[str, Any], state: dict[str, Any], apart: bool
) -> MessageStats:
    reading = measure_messages(connected.client, config["name"], state, apart=apart)
    try:
        return connected.run(reading)
    except Silent as exc:
        if config.get("retention", LIMITS) == LIMITS and not expires(config):
            raise
        return exc.stats


def _chosen(
    access: Access, reader: SetReader, chosen: Iterable[str]
) -> Iterator[tuple[NatsAccount, list[str]]]:
    """The accounts with chosen streams, each with the folders of those streams."""
    selected = set(chosen)
    folders = [n.rpartition("/")[0] for n in reader.names(FORM) if reader.unit(n) in selected]
    for declared in accounts(access.settings, reader.manifest):
        own_folders = [folder for folder in folders if folder.partition("/")[0] == declared.user]
        if own_folders:
            yield declared, own_folders


def _account(access: Access, declared: NatsAccount) -> AbstractContextManager[Account]:
    servers = access.endpoints(STATEFULSET, access.settings.components.nats.members, CLIENT_PORT)
    return account(access, servers, declared)
