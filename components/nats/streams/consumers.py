"""Saves and restores consumers that a stream's snapshot may lack.

Servers before 2.15 leave out consumers with fewer replicas than their stream. A backup therefore saves all consumers a
second time as JSON. A restore creates the missing ones, starting after the last acknowledged message: later messages
are delivered once more, none is lost.

Clients acknowledge messages while the snapshot is taken. So the backup also stores each consumer's progress after the
snapshot.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from archive.backup.reader import SetReader
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
# How long a restore waits for consumers that the snapshot may lack.
MAYBE_SECONDS = 5.0
LEFT_OUT = "consumers_left_out_of_the_snapshot"
BY_SEQUENCE = "by_start_sequence"
QUEUE = "workqueue"
UNTIL = "acknowledged_until"


def saved_consumers(reader: SetReader, folder: str) -> list[dict[str, Any]]:
    """The consumers of a backup's stream, as JetStream listed them."""
    consumers: list[dict[str, Any]] = reader.json(f"{folder}/consumers.json")
    return consumers


def left_out_consumers(reader: SetReader, folder: str) -> list[str]:
    """Names of the consumers that the stream's snapshot may lack."""
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
        patience: seconds to wait for the leaders of consumers that were just created or moved.
        clock: monotonic seconds.
        sleep: waits.

    Raises:
        Incomplete: a consumer has no leader.
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
    """Add to each consumer the sequence that it had acknowledged after the snapshot.

    Args:
        before: consumers as listed before the snapshot.
        after: consumers as listed after it.
    """
    acknowledged_after = {str(consumer["name"]): _acknowledged(consumer) for consumer in after}
    return [
        {
            **consumer,
            UNTIL: max(_acknowledged(consumer), acknowledged_after.get(str(consumer["name"]), 0)),
        }
        for consumer in before
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
    """Wait until the cluster knows the consumers of a stream that was just restored.

    The restore is acknowledged before the cluster's leader knows the stream. Until then the leader answers that there
    is no such stream (10059).

    The stream's leader proposes the consumers after that. Creating a consumer at the same time fails (10013) and leaves
    it without a leader; then no snapshot of its stream can be taken. A consumer that is proposed after its stream was
    scaled up keeps the old number of replicas (measured on 2.15.1).

    Args:
        connected: the stream's account.
        stream: its name.
        saved: the backup's consumers.
        left_out: names of consumers that the snapshot may lack. They are waited for `MAYBE_SECONDS`, all others for
            `PLACEMENT_SECONDS`.
        clock: monotonic seconds.
        sleep: waits.
    """
    awaited = {
        str(consumer["name"]) for consumer in saved if consumer["config"].get("durable_name")
    }
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
    connected: Account,
    stream_config: Mapping[str, Any],
    saved: Iterable[dict[str, Any]],
    **changes: Any,
) -> None:
    """Create the durable consumers that a restored stream lacks.

    They start after the last message that they had acknowledged. A work queue does not hold acknowledged messages, and
    refuses consumers with a start of their own (10101), so there they start at the beginning.

    Args:
        connected: the stream's account.
        stream_config: the stream's configuration.
        saved: the backup's consumers.
        changes: settings that replace those of each consumer.
    """
    stream, queue = stream_config["name"], stream_config.get("retention") == QUEUE
    names = {str(consumer["name"]) for consumer in consumers_of(connected, stream)}
    for consumer in saved:
        if consumer["name"] in names or not consumer["config"].get("durable_name"):
            continue
        start = {"deliver_policy": BY_SEQUENCE, "opt_start_seq": _acknowledged(consumer) + 1}
        consumer_config = {**consumer["config"], **({} if queue else start), **changes}
        if not queue:  # a consumer may have only one setting for its start
            consumer_config.pop("opt_start_time", None)
        body = {"stream_name": stream, "config": consumer_config}
        subject = f"CONSUMER.DURABLE.CREATE.{stream}.{consumer['name']}"
        call_when_placed(connected, subject, body, timeout=SECONDS)


def as_saved(
    config: Mapping[str, Any],
    current: Iterable[dict[str, Any]],
    saved: Iterable[dict[str, Any]],
    *,
    at_work: bool = False,
) -> list[dict[str, Any]]:
    """Live consumers in a form that can be compared with the backup's.

    Two things are not differences: the start of a consumer that the restore created, and progress that was made while
    the stream was being stored. In a work queue the remaining messages show what was acknowledged, so the position of
    its consumers is not compared.

    Args:
        config: the stream's configuration.
        current: consumers as JetStream lists them now.
        saved: the backup's consumers.
        at_work: clients acknowledge messages to the current consumers.
    """
    saved_by_name = {str(consumer["name"]): consumer for consumer in saved}
    if config.get("retention") == QUEUE:
        floors = {
            name: {"ack_floor": consumer.get("ack_floor", {})}
            for name, consumer in saved_by_name.items()
        }
        return [{**consumer, **floors.get(str(consumer["name"]), {})} for consumer in current]
    return [
        _as_saved(consumer, saved_by_name.get(str(consumer["name"])), at_work)
        for consumer in current
    ]


def taken_since(current: Iterable[dict[str, Any]], saved: Iterable[dict[str, Any]]) -> int:
    """The largest number of messages that consumers can have acknowledged since they were restored.

    Args:
        current: consumers as JetStream lists them now.
        saved: the backup's consumers.
    """
    saved_sequences = {
        str(consumer["name"]): int(consumer["ack_floor"].get("consumer_seq", 0))
        for consumer in saved
    }
    total = 0
    for consumer in current:
        acknowledged = int(consumer["delivered"]["consumer_seq"]) - int(
            consumer.get("num_ack_pending", 0)
        )
        start = saved_sequences.get(str(consumer["name"]), 0)
        # a consumer that the restore created counts from 0
        total += max(0, acknowledged - start if acknowledged >= start else acknowledged)
    return total


def lost_interest(current: Iterable[dict[str, Any]], saved: Iterable[dict[str, Any]]) -> bool:
    """Whether NATS itself deleted a consumer of the backup: it was ephemeral, or not used for too long.

    Args:
        current: consumers as JetStream lists them now.
        saved: the backup's consumers.
    """
    names = {str(consumer["name"]) for consumer in current}
    return any(
        str(consumer["name"]) not in names
        for consumer in saved
        if not consumer["config"].get("durable_name")
        or consumer["config"].get("inactive_threshold")
    )


# ---------------------------------------------------------------------- inside
def _as_saved(
    current: dict[str, Any], saved: dict[str, Any] | None, at_work: bool
) -> dict[str, Any]:
    if saved is None:
        return current
    config, saved_floor = current["config"], _acknowledged(saved)
    resumed = config.get("opt_start_seq") == saved_floor + 1
    if resumed and config.get("deliver_policy") == BY_SEQUENCE:
        config = {**config, "deliver_policy": saved["config"].get("deliver_policy")}
    normalized = {**current, "config": config}
    floor = _acknowledged(current)
    if saved_floor <= floor and (at_work or floor <= int(saved.get(UNTIL, saved_floor))):
        normalized["ack_floor"] = {"stream_seq": saved_floor}
    return normalized


def _acknowledged(consumer: dict[str, Any]) -> int:
    return int(consumer.get("ack_floor", {}).get("stream_seq", 0))
