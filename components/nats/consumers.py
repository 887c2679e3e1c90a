"""Consumers that a stream's snapshot left out (servers before 2.15: those with fewer replicas than their stream).

A backup saves all of them a second time, and a restore makes the missing ones again, behind what they had acknowledged:
every message after that comes once more, none is lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from archive.reader import SetReader
from components.nats.client import Account, call_when_placed, listed

SECONDS = 60.0
BY_SEQUENCE = "by_start_sequence"


def saved_consumers(reader: SetReader, folder: str) -> list[dict[str, Any]]:
    """The consumers of a set's stream, as JetStream listed them."""
    found: list[dict[str, Any]] = reader.json(f"{folder}/consumers.json")
    return found


def consumers_of(connected: Account, stream: str) -> list[dict[str, Any]]:
    """The consumers that a stream has now."""
    subject = f"CONSUMER.LIST.{stream}"
    return connected.run(listed(connected.client, subject, "consumers", timeout=SECONDS))


def make_missing_consumers(
    connected: Account, stream: str, saved: Iterable[dict[str, Any]], **changes: Any
) -> None:
    """Make the durable consumers that a restored stream has not.

    Args:
        connected: the stream's account.
        stream: its name.
        saved: the set's consumers.
        changes: to their configurations.
    """
    names = {str(one["name"]) for one in consumers_of(connected, stream)}
    for one in saved:
        if one["name"] in names or not one["config"].get("durable_name"):
            continue
        start = {"deliver_policy": BY_SEQUENCE, "opt_start_seq": _acknowledged(one) + 1}
        body = {"stream_name": stream, "config": {**one["config"], **start, **changes}}
        subject = f"CONSUMER.DURABLE.CREATE.{stream}.{one['name']}"
        call_when_placed(connected, subject, body, timeout=SECONDS)


def as_saved(
    there: Iterable[dict[str, Any]], saved: Iterable[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Consumers as their fingerprint has them: where one that was made again begins is no difference.

    Args:
        there: as JetStream lists them.
        saved: the set's.
    """
    before = {str(one["name"]): one for one in saved}
    found = []
    for one in there:
        was, config = before.get(str(one["name"])), one["config"]
        again = was is not None and config.get("opt_start_seq") == _acknowledged(was) + 1
        if was is not None and again and config.get("deliver_policy") == BY_SEQUENCE:
            config = {**config, "deliver_policy": was["config"].get("deliver_policy")}
        found.append({**one, "config": config})
    return found


def _acknowledged(consumer: dict[str, Any]) -> int:
    return int(consumer.get("ack_floor", {}).get("stream_seq", 0))
