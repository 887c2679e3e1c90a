"""Finds out, before any key is removed, why the live cluster would refuse a backup.

A master can refuse keys because slots have no master, a command is renamed, a value exceeds a limit, or memory is
short. Every member is asked; nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import redis

from archive.backup.manifest import Manifest
from archive.backup.reader import SetReader, opened
from components.access import Access, Endpoint
from components.questions import ask_members, words
from components.redis.client import (
    SLOTS,
    View,
    connect,
    open_slots,
    own_bytes,
    ranges,
    read_view,
)
from components.redis.fingerprint import FUNCTIONS
from components.redis.keys.rdb import UnknownFormat, read_keys
from components.redis.replacement.functions import place, slots_of
from components.redis.replacement.limits import NAMES, may_lift, settings
from components.redis.restore import FORM
from errors import TemporaryError

NEEDED = ("flushall", "restore", "function", "acl", "psync")
MIB = 1 << 20
# The memory that a backup needs is known to about 1 %. So a backup of a full master is not refused.
ESTIMATE = 0.01


def refusals(access: Access, reader: SetReader, members: list[Endpoint]) -> list[str]:
    """Why the cluster would refuse the backup; [] if it accepts it.

    Args:
        access: addresses and credentials.
        reader: the backup.
        members: all members of the cluster.

    Raises:
        TemporaryError: a member does not answer.
    """
    answers = ask_members(members, lambda member: read_view(access, member))
    if answers.bad:
        raise TemporaryError(f"Redis does not answer: {words(answers.bad)}")
    by_slots = [*_uncovered(answers.good, members)]
    if by_slots:
        return by_slots
    view = answers.good[min(answers.good)]
    addresses = {member.pod_ip: member for member in members}
    masters: dict[str, set[int]] = {}
    for slot, address in view.slots().items():
        masters.setdefault(addresses[address.rpartition(":")[0]].member, set()).add(slot)
    lines: list[str] = []
    for member in members:
        with connect(access, member) as client:
            lines += _commands(client, member.member)
            if member.member in masters:
                lines += _length(client, member.member, reader)
                lines += _memory(client, member.member, reader.manifest, masters[member.member])
    return lines + _functions(reader.manifest, masters)


# ---------------------------------------------------------------------- inside
def _uncovered(views: Mapping[str, View], members: list[Endpoint]) -> Iterator[str]:
    """Slots without a master, moving slots, and slots on unknown members."""
    slot_maps = [view.slots() for view in views.values()]
    if any(view != slot_maps[0] for view in slot_maps):
        yield "members disagree about the owners of slots: a failover or a resharding is in progress"
        return
    missing = set(range(SLOTS)) - set(slot_maps[0])
    if missing:
        yield f"slots {ranges(missing)} have no master"
    failing = sorted(name for name, view in views.items() if view.state != "ok")
    if failing and not missing:
        yield f"cluster_state:fail on {', '.join(failing)}"
    moving = open_slots(views)
    if moving:
        yield moving
    ours = {member.pod_ip for member in members}
    unknown = {
        address for address in slot_maps[0].values() if address.rpartition(":")[0] not in ours
    }
    if unknown:
        yield f"slots are served by {', '.join(sorted(unknown))}, which is not one of this cluster's pods"


def _commands(client: Any, member: str) -> Iterator[str]:
    """Commands that are renamed or disabled, and a missing right to create isa's user."""
    commands = client.execute_command("COMMAND INFO", *NEEDED)
    missing = [name.upper() for name, command in zip(NEEDED, commands, strict=True) if not command]
    if missing:
        yield f"{member} has no command {', '.join(missing)}: renamed in its configuration"
    try:
        answer = client.execute_command("ACL DRYRUN", "default", "ACL", "SETUSER", "isa-restore")
    except redis.ResponseError as exc:
        answer = str(exc)
    if str(answer) != "OK":
        yield f"{member} does not let the user of Secret redis-auth create users: {answer}"


def _length(client: Any, member: str, reader: SetReader) -> Iterator[str]:
    """A value that exceeds a limit which cannot be changed."""
    why = may_lift(client)
    if not why:
        return
    largest, name = _largest(reader)
    for setting in NAMES:
        limit = int(settings(client)[setting])
        if largest > limit:
            yield (
                f"key {name} has {largest} bytes, but {setting} of {member} is {limit} and cannot be changed ({why}): "
                "raise it in the server's configuration"
            )


def _largest(reader: SetReader) -> tuple[int, str]:
    """Bytes of the longest value of a backup in DUMP's form, and its key."""
    largest = (0, "")
    for name in reader.names(FORM):
        # a broken value ends the reading here; the scratch engine that loads the shard reports it
        with opened(reader.stream(name)) as file, suppress(UnknownFormat, EOFError):
            for key in read_keys(file):
                largest = max(largest, (key.size, repr(key.name.decode(errors="replace"))))
    return largest


def _memory(client: Any, member: str, manifest: Manifest, slots: set[int]) -> Iterator[str]:
    """A master whose maxmemory is too small for its part of the backup."""
    maxmemory = int(client.config_get("maxmemory")["maxmemory"])
    if not maxmemory:
        return
    needed = own_bytes(client.info("memory")) + _share(manifest, slots)
    if needed > maxmemory * (1 + ESTIMATE):
        policy = client.config_get("maxmemory-policy")["maxmemory-policy"]
        consequence = "refuse keys" if policy == "noeviction" else "evict keys"
        yield (
            f"{member} would need {needed / MIB:.0f} MiB, but its maxmemory is {maxmemory / MIB:.0f} MiB: it would "
            f"{consequence} ({policy}). Raise maxmemory, or move slots to another master"
        )


def _share(manifest: Manifest, own_slots: set[int]) -> int:
    """Bytes that a master with these slots needs for its part of a backup, if keys are spread evenly over slots.

    Older backups have no memory sizes; the size of the RDB is used instead, which is almost never larger.
    """
    stored = {
        artefact.unit: artefact.plain_size
        for artefact in manifest.artefacts
        if artefact.format == FORM
    }
    memory = {
        str(shard["unit"]): int(shard["memory"])
        for shard in manifest.topology.get("shards", ())
        if "memory" in shard
    }
    total = 0.0
    for unit, slots in slots_of(manifest).items():
        total += memory.get(unit, stored.get(unit, 0)) * len(slots & own_slots) / max(1, len(slots))
    return round(total)


def _functions(manifest: Manifest, masters: Mapping[str, set[int]]) -> list[str]:
    shards = {
        measure.unit: measure.names for measure in manifest.fingerprint if measure.item == FUNCTIONS
    }
    return place(shards, slots_of(manifest), masters).conflicts
