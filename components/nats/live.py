"""Replaces streams of the live JetStream by those of a backup.

A stream cannot be restored beside itself, so the old one is deleted first: the safety backup, and before it the backup
that is restored, were read to their last byte by then (`operations.restore.restore`). Streams come back with one
replica and are scaled up afterwards: with three at once a restore on slow disks fails (nats-io/nats-server#4270). What
a stream mirrors, gathers and republishes comes back with it: a mirror cannot be made of a stream later (error 10055),
and a restored one goes on behind the last message that it has of its origin, whether that is there already or not
(tried on 2.15.1).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from archive.cleanup_journal import CleanupJournal
from archive.manifest import Measure
from archive.reader import SetReader
from archive.spool import PIECE_BYTES, require_room
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
from components.nats.consumers import (
    as_saved,
    consumers_of,
    left_out_consumers,
    lost_interest,
    make_missing_consumers,
    saved_consumers,
    taken_since,
    wait_for_consumers,
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
from components.nats.messages import Seen, Silent, expires, measure_messages, nanoseconds
from components.nats.resources import LARGEST, StoredStream, account_of, numbers, servers_of
from components.nats.restore import ABOUT, ARCHIVE, FORM, INTEREST, accounts, restore_stream
from config.backups import NatsAccount
from errors import PermanentError

LIMITS = "limits"  # retention that nothing but limits ends
FULL_AT = ("max_msgs", "max_msgs_per_subject")
CALL_SECONDS = 60.0


def units(reader: SetReader) -> dict[str, int]:
    """Streams of the backup with their sizes."""
    return {reader.unit(name): reader.size(name) for name in reader.names(FORM)}


def can_take(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[str]:
    """Why JetStream would refuse streams of a backup.

    Raises:
        TemporaryError: it cannot be asked.
    """
    servers, found = servers_of(access), []
    for declared, folders in _chosen(access, reader, chosen):
        stored = [_stored(reader, folder) for folder in folders]
        try:
            with _account(access, declared) as connected:
                account_now = account_of(call_it(connected, "INFO"), *_streams(connected))
                found += refusals(stored, account_now, servers, partial(_dry_run, connected))
        except PermanentError as exc:  # the account is not there any more, or has no JetStream
            found += [f"{one.unit}: {exc}" for one in stored]
    return found


def replace(
    access: Access,
    served: RunningScratch | None,
    reader: SetReader,
    chosen: Iterable[str],
    cleanup: CleanupJournal,
) -> list[str]:
    """Restore streams in the place of the live ones.

    Raises:
        Damaged: an artefact is not what was stored.
        PermanentError, TemporaryError: JetStream does not take it.
    """
    spool, sizes = access.settings.backup.spool, units(reader)
    require_room(spool, max(sizes[unit] for unit in chosen))
    with cleanup.replacing(chosen), tempfile.TemporaryDirectory(dir=spool) as directory:
        for declared, folders in _chosen(access, reader, chosen):
            for folder in folders:
                # all of it is here before the old one goes
                saved = reader.save(f"{folder}/{ARCHIVE}", Path(directory) / "stream")
                backup = reader.json(f"{folder}/{ABOUT}")
                consumers = saved_consumers(reader, folder), left_out_consumers(reader, folder)
                # not earlier: an idle connection is cut
                with _account(access, declared) as connected:
                    _replace(connected, backup["config"]["name"], saved, backup, *consumers)
    return []


def measure(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """What the live streams hold now."""
    found: list[Measure] = []
    for declared, folders in _chosen(access, reader, chosen):
        with _account(access, declared) as connected:
            for folder in folders:
                found += _measure(connected, reader, folder)
    return found


def at_saved(now: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """A live stream's state without what has come since from publishers or the streams that it follows.

    Args:
        now: the state that JetStream tells.
        saved: the one that the backup has.
    """
    if int(now["last_seq"]) <= int(saved["last_seq"]):
        return dict(now)
    kept = ("last_seq", "messages", "num_subjects")
    return {**now, **{key: saved[key] for key in kept if key in saved}}


def may_have_gone(
    info: Mapping[str, Any],
    saved: Mapping[str, Any],
    there: Iterable[dict[str, Any]],
    before: Iterable[dict[str, Any]],
    now: int,
) -> int:
    """How many of a backup's messages may have left a stream since it was restored, with nothing lost.

    Clients take them from a work queue or a stream that keeps what somebody is interested in, which drops them too with
    the last consumer that is; one that is full drops a
    message for each that is published, and one with a limit of age the oldest, the sooner the older the backup is.

    Args:
        info: as JetStream describes the stream now.
        saved: the state that the backup has.
        there: its consumers now.
        before: those of the backup.
        now: time in nanoseconds since 1970.
    """
    config, state = info["config"], info["state"]
    published = max(0, int(state["last_seq"]) - int(saved["last_seq"]))
    oldest = max(0, int(state["first_seq"]) - int(saved["first_seq"]))
    age, gone = int(config.get("max_age") or 0), 0
    if any(int(config.get(limit) or 0) > 0 for limit in FULL_AT):
        gone += published
    elif published and int(config.get("max_bytes") or 0) > 0:
        gone += oldest
    if age and nanoseconds(saved["first_ts"]) + age < now:
        gone += oldest
    if config.get("retention", LIMITS) != LIMITS:
        gone += taken_since(there, before)
    if config.get("retention") == INTEREST and lost_interest(there, before):
        gone += int(saved["messages"])
    return gone


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
    """Ask JetStream of an account."""
    return call_when_placed(connected, subject, body, timeout=CALL_SECONDS)


def _replace(
    connected: Account,
    stream: str,
    saved: Path,
    backup: Mapping[str, Any],
    consumers: list[dict[str, Any]],
    left_out: list[str],
) -> None:
    try:
        call_it(connected, f"STREAM.DELETE.{stream}")
    except Refused as exc:
        if exc.code != NO_STREAM:
            raise
    with saved.open("rb") as file:
        pieces = iter(partial(file.read, PIECE_BYTES), b"")
        restore_stream(connected, restored_first(backup["config"]), backup["state"], pieces)
    wait_for_consumers(connected, stream, consumers, left_out)
    # replicas, their places, and the limits that the messages may break
    call_when_placed(
        connected, f"STREAM.UPDATE.{stream}", backup["config"], timeout=CALL_SECONDS,
        passing=OVERLAP,  # with the stream of a gate's round: it lives for a tenth of a second
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
    """An account's streams, and names of those that have no leader to describe them."""
    listing = listed(connected.client, "STREAM.LIST", "streams", timeout=CALL_SECONDS)
    try:
        return connected.run(listing), []
    except Incomplete as exc:
        return exc.found, exc.missing


def _dry_run(connected: Account, stream: StoredStream, config: Mapping[str, Any]) -> None:
    """Ask to restore a stream that is there: everything else is checked before its name is.

    Raises:
        Refused: for another reason.
    """
    request = {"config": config, "state": stream.state}
    try:
        call_it(connected, f"STREAM.RESTORE.{stream.name}", request)
    except Refused as exc:
        if exc.code != EXISTS:
            raise
        return
    with suppress(Refused):  # its clients deleted it since it was listed, and the restore began
        call_it(connected, f"STREAM.DELETE.{stream.name}")


def _measure(connected: Account, reader: SetReader, folder: str) -> list[Measure]:
    unit = reader.unit(f"{folder}/{ARCHIVE}")
    about, before = reader.json(f"{folder}/{ABOUT}"), saved_consumers(reader, folder)
    stream, saved = about["config"]["name"], about["state"]
    state = at_saved(call_it(connected, f"STREAM.INFO.{stream}")["state"], saved)
    seen = _seen(connected, about["config"], state, has_expiring(reader.manifest, unit))
    # behind the messages: what these lack by now, those tell
    info, there = call_it(connected, f"STREAM.INFO.{stream}"), consumers_of(connected, stream)
    wanted = measured(reader.manifest, unit, MESSAGES)
    until, lacking = None, (wanted.count if wanted else 0) - seen.staying
    if 0 < lacking <= (gone := may_have_gone(info, saved, there, before, time.time_ns())):
        state, until = {**saved, "messages": seen.count}, seen.staying + gone
    elif seen.apart or state["last_seq"] != info["state"]["last_seq"]:
        # not the promised number but what is there
        state = {**state, "messages": seen.count}
    consumers = as_saved(info["config"], there, before, at_work=True)
    found = measures(
        unit,
        state,
        consumers,
        seen,
        until,
        consumers_apart=has_expiring_consumers(reader.manifest, unit),
    )
    if has_configuration(reader.manifest, unit):
        found.append(measure_configuration(unit, info["config"], about["config"]))
    return found


def _seen(
    connected: Account, config: Mapping[str, Any], state: dict[str, Any], apart: bool
) -> Seen:
    reading = measure_messages(connected.client, config["name"], state, apart=apart)
    try:
        return connected.run(reading)
    except Silent as exc:
        if config.get("retention", LIMITS) == LIMITS and not expires(config):
            raise
        return exc.seen


def _chosen(
    access: Access, reader: SetReader, chosen: Iterable[str]
) -> Iterator[tuple[NatsAccount, list[str]]]:
    """Accounts, each with the folders of its streams."""
    wanted = set(chosen)
    folders = [n.rpartition("/")[0] for n in reader.names(FORM) if reader.unit(n) in wanted]
    for declared in accounts(access.settings, reader.manifest):
        mine = [folder for folder in folders if folder.partition("/")[0] == declared.user]
        if mine:
            yield declared, mine


def _account(access: Access, declared: NatsAccount) -> AbstractContextManager[Account]:
    servers = access.endpoints(STATEFULSET, access.settings.components.nats.members, CLIENT_PORT)
    return account(access, servers, declared)
