"""Replaces collections of the live Qdrant by those of a set, with as many copies of each shard as they had.

A collection is deleted and made anew, since a snapshot does not fit one with other shards; then each shard's snapshot
goes to a peer that has the shard, and the other copies follow from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import unquote

from archive.leftovers import Leftovers
from archive.manifest import Measure
from archive.reader import SetReader
from components.access import Access, Endpoint
from components.base import Live, Served
from components.qdrant.client import PORT, STATEFULSET, call, get, path_of
from components.qdrant.fingerprint import measure_collection, measure_indexes
from components.qdrant.restore import (
    DESCRIPTION,
    FORM,
    explained,
    restore_aliases,
    restore_collection,
)
from components.questions import ask_members, words
from errors import TemporaryError


def units(reader: SetReader) -> dict[str, int]:
    """Collections of the set with their sizes."""
    found: dict[str, int] = {}
    for name in reader.names(FORM):
        unit = reader.unit(name)
        found[unit] = found.get(unit, 0) + reader.size(name)
    return found


@contextmanager
def fence(access: Access, chosen: Iterable[str]) -> Iterator[str]:
    """Nothing to do: a collection that is not there takes no points."""
    yield "writes to a collection are refused while it is away; those to one that is being filled may be lost"


def replace(
    access: Access,
    served: Served | None,
    reader: SetReader,
    chosen: Iterable[str],
    leftovers: Leftovers,
) -> list[str]:
    """Restore collections in the place of the live ones, and the aliases that point at them.

    Raises:
        Damaged: an artefact is not what was stored.
        PermanentError: Qdrant refuses something.
        TemporaryError: it went away.
    """
    peers = _peers(access)
    first = next(iter(peers.values()))
    wanted = {unit.partition(" ")[2] for unit in chosen}
    seconds = access.settings.backup.stall_seconds
    with explained(), leftovers.replacing(chosen):
        there = {str(c["name"]) for c in get(access, first, "/collections")["collections"]}
        for name in reader.names("JSON"):
            collection = unquote(name.removesuffix(DESCRIPTION))
            if not name.endswith(DESCRIPTION) or collection not in wanted:
                continue
            if collection in there:
                call(access, first, "DELETE", path_of(collection), timeout=seconds)
            restore_collection(access, peers, reader, name.removesuffix(DESCRIPTION), copies=None)
        restore_aliases(access, first, reader, wanted)
    return []


def measure(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """What the live collections hold now."""
    first = next(iter(_peers(access).values()))
    found: list[Measure] = []
    with explained():
        for name in (unit.partition(" ")[2] for unit in chosen):
            found += [measure_collection(access, first, name), measure_indexes(access, first, name)]
    return found


LIVE = Live(
    units,
    fence,
    replace,
    measure,
    writers="writes to a collection are refused while it is away; those between its making and its filling are lost",
)


def _peers(access: Access) -> dict[str, Endpoint]:
    """Peers by their ids; all must answer, for each may have to take a shard."""
    members = access.endpoints(STATEFULSET, access.settings.components.qdrant.members, PORT)
    answers = ask_members(members, lambda peer: get(access, peer, "/cluster"))
    if answers.bad:
        raise TemporaryError(f"not every peer of Qdrant answers: {words(answers.bad)}", delay=15)
    by_name = {member.member: member for member in members}
    return {str(said["peer_id"]): by_name[name] for name, said in answers.good.items()}
