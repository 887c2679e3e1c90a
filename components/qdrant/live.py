"""Replaces collections of the live Qdrant by those of a backup, with as many copies of each shard as they had.

A collection is deleted and made again, since a snapshot does not fit one with other shards; then each shard's snapshot
goes to a peer that has the shard, and the other copies follow from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from archive.cleanup_journal import CleanupJournal
from archive.manifest import Measure
from archive.reader import SetReader
from components.access import Access
from components.base import Live, RunningScratch, without_fence
from components.qdrant.client import call, names, path_of
from components.qdrant.fingerprint import comparable, measure_whole
from components.qdrant.peers import Peers, all_peers, without_consensus
from components.qdrant.restore import (
    DESCRIPTION,
    FORM,
    aliases_of,
    collection_in,
    explained,
    folders,
    restore_aliases,
    restore_collection,
)
from components.qdrant.room import as_text, free_bytes


def units(reader: SetReader) -> dict[str, int]:
    """Collections of the backup with their sizes; one without shards has none."""
    found = {reader.unit(folder + DESCRIPTION): 0 for folder in folders(reader)}
    for name in reader.names(FORM):
        unit = reader.unit(name)
        found[unit] = found.get(unit, 0) + reader.size(name)
    return found


def replace(
    access: Access,
    served: RunningScratch | None,
    reader: SetReader,
    chosen: Iterable[str],
    cleanup: CleanupJournal,
) -> list[str]:
    """Restore collections in the place of the live ones, and the aliases that point at them.

    Returns:
        Aliases that were left alone, since they point to another collection by now.

    Raises:
        Damaged: an artefact is not what was stored.
        PermanentError: Qdrant refuses something.
        TemporaryError: it went away.
    """
    peers = all_peers(access)
    wanted = {_collection_of(unit) for unit in chosen}
    seconds = access.settings.backup.stall_seconds
    with explained(), cleanup.replacing(chosen):
        there = names(access, peers.first)
        for folder in folders(reader):
            collection = collection_in(reader, folder)
            if collection not in wanted:
                continue
            if collection in there:
                call(access, peers.first, "DELETE", path_of(collection), timeout=seconds)
            restore_collection(access, peers.by_id, reader, folder)
        return restore_aliases(access, peers.first, reader, wanted)


def measure(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """What the live collections hold now."""
    first = all_peers(access).first
    found: list[Measure] = []
    with explained():
        for unit in chosen:
            found += measure_whole(access, first, _collection_of(unit))
    return comparable(found, reader.manifest.fingerprint)


def can_take(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[str]:
    """Why the live cluster would refuse collections of a backup, as if those of these names were away.

    Args:
        access: the way in.
        reader: of the backup.
        chosen: units; those that the backup does not hold are skipped.

    Raises:
        TemporaryError: a peer does not answer.
    """
    peers = all_peers(access)
    held = units(reader)
    units_chosen = tuple(unit for unit in chosen if unit in held)
    with explained():
        of_all = [
            *(
                f"peer {identity} ({uri}) is registered in the cluster but is not one of its members: shards would be "
                f"placed on it. Remove it first (DELETE /cluster/peer/{identity}?force=true)"
                for identity, uri in peers.lost.items()
            ),
            *(f"{name}: {why}" for name, why in without_consensus(peers.said).items()),
            *_lacking_room(access, peers, reader, units_chosen),
        ]
        there, aliases = names(access, peers.first), aliases_of(access, peers.first)
        found = []
        for unit in units_chosen:
            own = _name_clashes(_collection_of(unit), reader, there, aliases)
            found += [f"{unit}: {reason}" for reason in ("; ".join([*of_all, *own]),) if reason]
    return found


LIVE = Live(
    units,
    without_fence(
        "writes to a collection are refused while it does not exist; writes during its restore may be lost"
    ),
    replace,
    measure,
    can_take=can_take,
    writers="writes to a collection are refused while it does not exist; writes between its creation and its restore "
    "are lost",
)


# ---------------------------------------------------------------------- inside
def _collection_of(unit: str) -> str:
    return unit.partition(" ")[2]


def _name_clashes(
    collection: str, reader: SetReader, there: Iterable[str], aliases: Mapping[str, str]
) -> list[str]:
    """Why a collection's name, or one of its aliases, is taken by something of the other kind."""
    found = []
    if collection in aliases:
        found.append(
            f"{collection} is now an alias of {aliases[collection]}: remove or rename the alias first"
        )
    taken = set(there)
    for alias in reader.json("aliases.json"):
        if alias["collection_name"] == collection and alias["alias_name"] in taken:
            found.append(f"its alias {alias['alias_name']} is now a collection: rename that first")
    return found


def _lacking_room(
    access: Access, peers: Peers, reader: SetReader, chosen: Iterable[str]
) -> list[str]:
    """Peers whose disks are too full: what is uploaded lies there twice, as an archive and unpacked.

    Collections that are there make room for those of the backup; shards are spread evenly.
    """
    there = {f"collection {name}" for name in names(access, peers.first)}
    sizes = {name: reader.size(name) for name in reader.names(FORM) if reader.unit(name) in chosen}
    added, folder_of = 0, {reader.unit(f + DESCRIPTION): f for f in folders(reader)}
    for unit in set(chosen) - there:
        folder = folder_of[unit]
        config = reader.json(f"{folder}{DESCRIPTION}")["collection"]["config"]
        copies = int(config["params"].get("replication_factor") or 1)
        size = sum(size for name, size in sizes.items() if reader.unit(name) == unit)
        added += size * min(copies, len(peers.by_id))
    needed = added // len(peers.by_id) + 2 * max(sizes.values(), default=0)
    found = []
    for peer in peers.by_id.values():
        free = free_bytes(access, peer)
        if free is not None and free < needed:
            found.append(
                f"{peer.member} has {as_text(free)} free and needs about {as_text(needed)}: enlarge its volume"
            )
    return found
