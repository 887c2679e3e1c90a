"""Consumers that a stream's snapshot left out (servers before 2.15: those with fewer replicas than their stream).

A backup saves all of them a second time, and a restore makes the missing ones again, behind what they had acknowledged:
every message after that comes once more, none is lost. Clients go on acknowledging meanwhile, and nobody knows what of
that the snapshot has: the backup notes beside each consumer how far it was at the end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from archive.reader import SetReader
from cluster.polling import retry
from components.nats.client import (
    NO_STREAM,
    PLACEMENT_SECONDS,
    Account,
    Incomplete,
    Refused,
    call_when_placed,
    listed,
)

log = logging.getLogger(__name__)

SECONDS = 60.0
# that a restored stream gets for consumers which its snapshot may have or not
MAYBE_SECONDS = 5.0
LEFT_OUT = "consumers_left_out_of_the_snapshot"
BY_SEQUENCE = "by_start_sequence"
QUEUE = "workqueue"
UNTIL = "acknowledged_until"


def saved_consumers(reader: SetReader, folder: str) -> list[dict[str, Any]]:
    """The consumers of a backup's stream, as JetStream listed them."""
    found: list[dict[str, Any]] = reader.json(f"{folder}/consumers.json")
    return found


def left_out_consumers(reader: SetReader, folder: str) -> list[str]:
    """Those of them that the stream's snapshot may not have."""
    names: list[str] = reader.manifest.topology["streams"][folder].get(LEFT_OUT, [])
    return names


def consumers_of(
    connected: Account,
    stream: str,
    *,
    patience: float = PLACEMENT_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[dict[str, Any]]:
    """The consumers that a stream has now.

    Args:
        connected: the stream's account.
        stream: its name.
        patience: seconds in which those that were made or moved just now may find their leader.
        clock: monotonic seconds.
        sleep: waits.

    Raises:
        Incomplete: one of them has no leader.
        Unanswered: no server answers.
    """
    subject = f"CONSUMER.LIST.{stream}"
    return retry(
        lambda: connected.run(listed(connected.client, subject, "consumers", timeout=SECONDS)),
        lambda exc: isinstance(exc, Incomplete),
        patience,
        pause=0.5,
        clock=clock,
        sleep=sleep,
    )


def with_progress(
    before: Iterable[dict[str, Any]], after: Iterable[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Consumers from before a snapshot, each with the sequence that it had acknowledged after it."""
    later = {str(one["name"]): _acknowledged(one) for one in after}
    return [
        {**one, UNTIL: max(_acknowledged(one), later.get(str(one["name"]), 0))} for one in before
    ]


def wait_for_consumers(
    connected: Account,
    stream: str,
    saved: Iterable[dict[str, Any]],
    left_out: Iterable[str],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until a cluster has taken over the consumers of a stream that it has just restored.

    The server that restored it acknowledges before the cluster's leader knows the stream: until then that one says
    that there is none (10059).
    The stream's leader proposes them after the restore was acknowledged. One that is made beside its proposal is
    refused (10013) and stays without a leader, so that no snapshot is taken of its stream any more; and what the stream
    is scaled to before its proposal does not reach it (measured on 2.15.1).

    Args:
        connected: the stream's account.
        stream: its name.
        saved: the backup's consumers.
        left_out: names of those that the snapshot may not have; they are waited for a few seconds, others for a minute.
        clock: monotonic seconds.
        sleep: waits.
    """
    awaited = {str(one["name"]) for one in saved if one["config"].get("durable_name")}
    subject, begun = f"CONSUMER.NAMES.{stream}", clock()
    while True:
        try:
            names = connected.run(listed(connected.client, subject, "consumers", timeout=SECONDS))
        except Refused as exc:
            if exc.code != NO_STREAM or clock() - begun > PLACEMENT_SECONDS:
                raise
        else:
            awaited -= {str(name) for name in names}
            patience = PLACEMENT_SECONDS if awaited - set(left_out) else MAYBE_SECONDS
            if not awaited or clock() - begun > patience:
                return
        sleep(0.1)


def make_missing_consumers(
    connected: Account, of: Mapping[str, Any], saved: Iterable[dict[str, Any]], **changes: Any
) -> None:
    """Make the durable consumers that a restored stream has not.

    Args:
        connected: the stream's account.
        of: the stream's configuration. A work queue has nothing any more of what was acknowledged, and takes no
            consumer that begins anywhere else (10101).
        saved: the backup's consumers.
        changes: to their configurations.
    """
    stream, queue = of["name"], of.get("retention") == QUEUE
    names = {str(consumer["name"]) for consumer in consumers_of(connected, stream)}
    for one in saved:
        if one["name"] in names or not one["config"].get("durable_name"):
            continue
        behind = {"deliver_policy": BY_SEQUENCE, "opt_start_seq": _acknowledged(one) + 1}
        config = {**one["config"], **({} if queue else behind), **changes}
        if not queue:  # nothing else may say where it begins
            config.pop("opt_start_time", None)
        body = {"stream_name": stream, "config": config}
        subject = f"CONSUMER.DURABLE.CREATE.{stream}.{one['name']}"
        call_when_placed(connected, subject, body, timeout=SECONDS)


def as_saved(
    config: Mapping[str, Any],
    there: Iterable[dict[str, Any]],
    saved: Iterable[dict[str, Any]],
    *,
    at_work: bool = False,
) -> list[dict[str, Any]]:
    """Consumers as their fingerprint has them, without what is no difference.

    That is where one begins that was made again, and how far one is that moved while its stream was stored. In a work
    queue it is the messages themselves that tell what was acknowledged.

    Args:
        config: the stream's.
        there: as JetStream lists them.
        saved: the backup's.
        at_work: whether clients acknowledge to those that are there.
    """
    before = {str(one["name"]): one for one in saved}
    if config.get("retention") == QUEUE:
        floors = {name: {"ack_floor": one.get("ack_floor", {})} for name, one in before.items()}
        return [{**one, **floors.get(str(one["name"]), {})} for one in there]
    return [_as_saved(one, before.get(str(one["name"])), at_work) for one in there]


def taken_since(there: Iterable[dict[str, Any]], saved: Iterable[dict[str, Any]]) -> int:
    """How many messages consumers have acknowledged at most since they were restored from a backup.

    Args:
        there: as JetStream lists them.
        saved: the backup's.
    """
    before = {str(one["name"]): int(one["ack_floor"].get("consumer_seq", 0)) for one in saved}
    found = 0
    for one in there:
        acknowledged = int(one["delivered"]["consumer_seq"]) - int(one.get("num_ack_pending", 0))
        begun = before.get(str(one["name"]), 0)
        # one that was made again counts from nothing
        found += max(0, acknowledged - begun if acknowledged >= begun else acknowledged)
    return found


def lost_interest(there: Iterable[dict[str, Any]], before: Iterable[dict[str, Any]]) -> bool:
    """Whether NATS has deleted a consumer of the backup by itself: an ephemeral one, or one unused for too long.

    Args:
        there: consumers now, as JetStream lists them.
        before: those of the backup.
    """
    names = {str(one["name"]) for one in there}
    return any(
        str(one["name"]) not in names
        for one in before
        if not one["config"].get("durable_name") or one["config"].get("inactive_threshold")
    )


# ---------------------------------------------------------------------- inside
def _as_saved(there: dict[str, Any], saved: dict[str, Any] | None, at_work: bool) -> dict[str, Any]:
    if saved is None:
        return there
    config, low = there["config"], _acknowledged(saved)
    again = config.get("opt_start_seq") == low + 1
    if again and config.get("deliver_policy") == BY_SEQUENCE:
        config = {**config, "deliver_policy": saved["config"].get("deliver_policy")}
    found = {**there, "config": config}
    reached = _acknowledged(there)
    if low <= reached and (at_work or reached <= int(saved.get(UNTIL, low))):
        found["ack_floor"] = {"stream_seq": low}
    return found


def _acknowledged(consumer: dict[str, Any]) -> int:
    return int(consumer.get("ack_floor", {}).get("stream_seq", 0))
