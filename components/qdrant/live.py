"""Replaces collections of the live Qdrant by those of a backup, with the same number of replicas.

A collection is deleted and created again, because a snapshot only fits the same shards. Each shard's snapshot is
uploaded to one peer that has the shard; Qdrant fills the other replicas from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from archive.backup.cleanup_journal import CleanupJournal
from archive.backup.manifest import Measure
from archive.backup.reader import SetReader
from components.access import Access
from components.base import Live, RunningScratch, without_fence
from components.qdrant.client import call, names, path_of
from components.qdrant.collections.room import as_text, free_bytes
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


def units(reader: SetReader) -> dict[str, int]:
    """Collections of the backup with their sizes; 0 for a collection without shards."""
    sizes = {reader.unit(folder + DESCRIPTION): 0 for folder in folders(reader)}
    for name in reader.names(FORM):
        unit = reader.unit(name)
        sizes[unit] = sizes.get(unit, 0) + reader.size(name)
    return sizes


def replace(
    access: Access,
    served: RunningScratch | None,
    reader: SetReader,
    chosen: Iterable[str],
    cleanup: CleanupJournal,
) -> list[str]:
    """Replace live collections by those of the backup, and restore the aliases that point to them.

    Returns:
        Remarks on aliases that were not changed, because they now point to another collection.

    Raises:
        Damaged: an artefact differs from what was stored.
        PermanentError: Qdrant refuses something.
        TemporaryError: Qdrant went away.
    """
    peers = all_peers(access)
    collections = {_collection_of(unit) for unit in chosen}
    seconds = access.settings.backup.stall_seconds
    with explained(), cleanup.replacing(chosen):
        live_names = names(access, peers.first)
        for folder in folders(reader):
            collection = collection_in(reader, folder)
            if collection not in collections:
                continue
            if collection in live_names:
                call(access, peers.first, "DELETE", path_of(collection), timeout=seconds)
            restore_collection(access, peers.by_id, reader, folder)
        return restore_aliases(access, peers.first, reader, collections)


def measure(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """Measure the live collections."""
    first = all_peers(access).first
    measures: list[Measure] = []
    with explained():
        for unit in chosen:
            measures += measure_whole(access, first, _collection_of(unit))
    return comparable(measures, reader.manifest.fingerprint)


def can_take(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[str]:
    """Why the live cluster would refuse collections of a backup, after live ones of the same names were deleted.

    Args:
        access: addresses and credentials.
        reader: the backup.
        chosen: units; units that are not in the backup are skipped.

    Raises:
        TemporaryError: a peer does not answer.
    """
    peers = all_peers(access)
    in_backup = units(reader)
    units_chosen = tuple(unit for unit in chosen if unit in in_backup)
    with explained():
        common = [
            *(
                f"peer {identity} ({uri}) is registered in the cluster but is not one of its members: shards would be "
                f"placed on it. Remove it first (DELETE /cluster/peer/{identity}?force=true)"
                for identity, uri in peers.lost.items()
            ),
            *(f"{name}: {why}" for name, why in without_consensus(peers.said).items()),
            *_lacking_room(access, peers, reader, units_chosen),
        ]
        live_names, aliases = names(access, peers.first), aliases_of(access, peers.first)
        lines = []
        for unit in units_chosen:
            clashes = _name_clashes(_collection_of(unit), reader, live_names, aliases)
            lines += [f"{unit}: {reason}" for reason in ("; ".join([*common, *clashes]),) if reason]
    return lines


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
    collection: str, reader: SetReader, existing: Iterable[str], aliases: Mapping[str, str]
) -> list[str]:
    """A collection whose name is now an alias, and aliases whose names are now collections."""
    clashes = []
    if collection in aliases:
        clashes.append(
            f"{collection} is now an alias of {aliases[collection]}: remove or rename the alias first"
        )
    live_names = set(existing)
    for alias in reader.json("aliases.json"):
        if alias["collection_name"] == collection and alias["alias_name"] in live_names:
            clashes.append(
                f"its alias {alias['alias_name']} is now a collection: rename that first"
            )
    return clashes


def _lacking_room(
    access: Access, peers: Peers, reader: SetReader, chosen: Iterable[str]
) -> list[str]:
    """Peers whose disks are too full. An upload needs space twice: as an archive and unpacked.

    Deleted collections free their space for the backup's. Shards are assumed to be spread evenly.
    """
    live_units = {f"collection {name}" for name in names(access, peers.first)}
    sizes = {name: reader.size(name) for name in reader.names(FORM) if reader.unit(name) in chosen}
    added, folder_of = 0, {reader.unit(f + DESCRIPTION): f for f in folders(reader)}
    for unit in set(chosen) - live_units:
        folder = folder_of[unit]
        config = reader.json(f"{folder}{DESCRIPTION}")["collection"]["config"]
        copies = int(config["params"].get("replication_factor") or 1)
        size = sum(size for name, size in sizes.items() if reader.unit(name) == unit)
        added += size * min(copies, len(peers.by_id))
    needed = added // len(peers.by_id) + 2 * max(sizes.values(), default=0)
    lines = []
    for peer in peers.by_id.values():
        free = free_bytes(access, peer)
        if free is not None and free < needed:
            lines.append(
                f"{peer.member} has {as_text(free)} free and needs about {as_text(needed)}: enlarge its volume"
            )
    return lines
