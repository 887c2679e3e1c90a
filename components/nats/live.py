"""Replaces streams of the live JetStream by those of a set.

A stream cannot be restored beside itself, so the old one is deleted first: the safety backup, and before it the set
that is restored, were read to their last byte by then (`operations.restoring`). Streams come back with one replica and
are scaled up afterwards: with three at once a restore on slow disks fails (nats-io/nats-server#4270).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from archive.manifest import Measure
from archive.reader import SetReader
from components.access import Access
from components.base import Live, Served
from components.nats.client import CLIENT_PORT, STATEFULSET, Account, Refused, account, call
from components.nats.consumers import (
    as_saved,
    consumers_of,
    make_missing_consumers,
    saved_consumers,
)
from components.nats.fingerprint import measure_messages, measures
from components.nats.restore import FORM, TIES, accounts, restore_stream

NOT_FOUND = 10059
DELETE_SECONDS = 60.0


def units(reader: SetReader) -> dict[str, int]:
    """Streams of the set with their sizes."""
    return {reader.unit(name): reader.size(name) for name in reader.names(FORM)}


@contextmanager
def fence(access: Access, chosen: Iterable[str]) -> Iterator[str]:
    """Nothing to do: a stream that is not there takes no messages."""
    yield "publishers get no acknowledgement while a stream is away"


def replace(
    access: Access, served: Served | None, reader: SetReader, chosen: Iterable[str]
) -> list[str]:
    """Restore streams in the place of the live ones.

    Raises:
        Damaged: an artefact is not what was stored.
        PermanentError, TemporaryError: JetStream does not take it.
    """
    for connected, folder in _chosen(access, reader, chosen):
        stream = folder.partition("/")[2]
        try:
            call_it(connected, f"STREAM.DELETE.{stream}")
        except Refused as exc:
            if exc.code != NOT_FOUND:
                raise
        restore_stream(connected, reader, folder)
        config: dict[str, Any] = reader.json(f"{folder}/backup.json")["config"]
        later = {
            key: value for key, value in config.items() if key not in TIES or key == "placement"
        }
        call_it(connected, f"STREAM.UPDATE.{stream}", later)
        make_missing_consumers(connected, stream, saved_consumers(reader, folder))
    return []


def measure(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """What the live streams hold now."""
    found: list[Measure] = []
    for connected, folder in _chosen(access, reader, chosen):
        stream = folder.partition("/")[2]
        state = call_it(connected, f"STREAM.INFO.{stream}")["state"]
        there = consumers_of(connected, stream)
        consumers = as_saved(there, saved_consumers(reader, folder))
        seen = connected.run(measure_messages(connected.client, stream, state))
        found += measures(f"stream {folder}", state, consumers, seen)
    return found


LIVE = Live(
    units,
    fence,
    replace,
    measure,
    writers="a stream takes nothing from its deletion until it is restored: publishers get no acknowledgement",
)


# ---------------------------------------------------------------------- inside
def call_it(connected: Account, subject: str, body: Any = None) -> dict[str, Any]:
    """Ask JetStream of an account."""
    return connected.run(call(connected.client, subject, body, timeout=DELETE_SECONDS))


def _chosen(
    access: Access, reader: SetReader, chosen: Iterable[str]
) -> Iterator[tuple[Account, str]]:
    """Account and folder of each stream."""
    wanted = set(chosen)
    folders = [n.rpartition("/")[0] for n in reader.names(FORM) if reader.unit(n) in wanted]
    servers = access.endpoints(STATEFULSET, access.settings.components.nats.members, CLIENT_PORT)
    for declared in accounts(access.settings, reader.manifest):
        mine = [folder for folder in folders if folder.partition("/")[0] == declared.user]
        if mine:
            with account(access, servers, declared) as connected:
                for folder in mine:
                    yield connected, folder
