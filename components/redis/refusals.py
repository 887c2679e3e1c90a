"""Why the live cluster would refuse a backup, known before anything is emptied.

A key that a master refuses is lost once the others are copied: slots without a master, a renamed command, a
setting that a value is too long for, too little memory. Asked of every member; nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import redis

from archive.manifest import Manifest
from archive.reader import SetReader, opened
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
from components.redis.functions import place, slots_of
from components.redis.limits import NAMES, may_lift, settings
from components.redis.rdb import UnknownFormat, read_keys
from components.redis.restore import FORM
from errors import TemporaryError

NEEDED = ("flushall", "restore", "function", "acl", "psync")
MIB = 1 << 20
# A backup may hold what filled a master to its limit; what it needs is known to about one part in a hundred.
ESTIMATE = 0.01


def refusals(access: Access, reader: SetReader, members: list[Endpoint]) -> list[str]:
    """Ask every member; [] if the cluster takes the backup.

    Args:
        access: the way to the live cluster.
        reader: the backup.
        members: of the cluster.

    Raises:
        TemporaryError: a member cannot be asked.
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
    found: list[str] = []
    for member in members:
        with connect(access, member) as client:
            found += _commands(client, member.member)
            if member.member in masters:
                found += _length(client, member.member, reader)
                found += _memory(client, member.member, reader.manifest, masters[member.member])
    return found + _functions(reader.manifest, masters)


# ---------------------------------------------------------------------- inside
def _uncovered(views: Mapping[str, View], members: list[Endpoint]) -> Iterator[str]:
    """Slots that take no key, or take it elsewhere."""
    maps = [view.slots() for view in views.values()]
    if any(view != maps[0] for view in maps):
        yield "members disagree about the owners of slots: a failover or a resharding is in progress"
        return
    missing = set(range(SLOTS)) - set(maps[0])
    if missing:
        yield f"slots {ranges(missing)} have no master"
    failing = sorted(name for name, view in views.items() if view.state != "ok")
    if failing and not missing:
        yield f"cluster_state:fail on {', '.join(failing)}"
    moving = open_slots(views)
    if moving:
        yield moving
    ours = {member.pod_ip for member in members}
    strange = {one for one in maps[0].values() if one.rpartition(":")[0] not in ours}
    if strange:
        yield f"slots are served by {', '.join(sorted(strange))}, which is not one of this cluster's pods"


def _commands(client: Any, member: str) -> Iterator[str]:
    """Commands that are renamed or switched off, and the right to make the user that restores."""
    known = client.execute_command("COMMAND INFO", *NEEDED)
    gone = [name.upper() for name, one in zip(NEEDED, known, strict=True) if not one]
    if gone:
        yield f"{member} has no command {', '.join(gone)}: renamed in its configuration"
    try:
        answer = client.execute_command("ACL DRYRUN", "default", "ACL", "SETUSER", "isa-restore")
    except redis.ResponseError as exc:
        answer = str(exc)
    if str(answer) != "OK":
        yield f"{member} does not let the user of Secret redis-auth create users: {answer}"


def _length(client: Any, member: str, reader: SetReader) -> Iterator[str]:
    """A value that is longer than a limit that cannot be lifted."""
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
    """Bytes of the longest value of a backup, as DUMP gives it, and its key."""
    found = (0, "")
    for name in reader.names(FORM):
        # what a shard has behind a broken value is for the server that loads it to say
        with opened(reader.stream(name)) as file, suppress(UnknownFormat, EOFError):
            for key in read_keys(file):
                found = max(found, (key.size, repr(key.name.decode(errors="replace"))))
    return found


def _memory(client: Any, member: str, manifest: Manifest, held: set[int]) -> Iterator[str]:
    """A backup that takes more memory than a master may use."""
    maxmemory = int(client.config_get("maxmemory")["maxmemory"])
    if not maxmemory:
        return
    needed = own_bytes(client.info("memory")) + _share(manifest, held)
    if needed > maxmemory * (1 + ESTIMATE):
        policy = client.config_get("maxmemory-policy")["maxmemory-policy"]
        then = "refuse keys" if policy == "noeviction" else "evict keys"
        yield (
            f"{member} would need {needed / MIB:.0f} MiB, but its maxmemory is {maxmemory / MIB:.0f} MiB: it would "
            f"{then} ({policy}). Raise maxmemory, or move slots to another master"
        )


def _share(manifest: Manifest, held: set[int]) -> int:
    """Bytes that a master with these slots needs for its part of a backup; keys are spread evenly over a shard's slots.

    Older sets do not say what their keys took in memory, which is hardly ever less than in their RDB.
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
        total += memory.get(unit, stored.get(unit, 0)) * len(slots & held) / max(1, len(slots))
    return round(total)


def _functions(manifest: Manifest, masters: Mapping[str, set[int]]) -> list[str]:
    shards = {
        measure.unit: measure.names for measure in manifest.fingerprint if measure.item == FUNCTIONS
    }
    return place(shards, slots_of(manifest), masters).conflicts
