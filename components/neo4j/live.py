"""Replaces databases of a live Neo4j Community by those of a backup, while its member is stopped.

The database `system` has the users and their passwords: in a server in use it is replaced only when it is asked for
by its name; a rebuilt or lost server gets it back with all the rest. An Enterprise cluster is restored by hand
(docs/restore-by-hand.md): its members must be seeded one from the other.
"""

from __future__ import annotations

from collections.abc import Iterable

from neo4j.exceptions import AuthError

from archive.cleanup_journal import CleanupJournal
from archive.manifest import Measure
from archive.reader import SetReader
from components.access import Access
from components.base import Live, RunningScratch, without_fence
from components.neo4j import offline
from components.neo4j.client import PORT, until_answered
from components.neo4j.compatibility import can_take, data_directory, require_room
from components.neo4j.fingerprint import ACCOUNTS, form_of, measure_database, measure_users
from components.neo4j.restore import DUMP, SYSTEM
from config.models import Settings
from errors import PermanentError


def units(reader: SetReader) -> dict[str, int]:
    """Databases of the backup with their sizes; `system` comes last."""
    sizes = {reader.unit(name): reader.size(name) for name in reader.names(DUMP)}
    return dict(sorted(sizes.items(), key=lambda item: item[0] == f"database {SYSTEM}"))


def replace(
    access: Access,
    served: RunningScratch | None,
    reader: SetReader,
    chosen: Iterable[str],
    cleanup: CleanupJournal,
) -> list[str]:
    """Load databases over the live ones, with the member stopped; it is started again in any case.

    A run that is killed leaves it to the next restore or backup, by its note.

    Raises:
        Damaged: a dump is not what was stored.
        PermanentError: it is an Enterprise cluster, or the volume has too little room: nothing was overwritten.
        TemporaryError: the member does not stop, or a load failed.
    """
    refusal = by_hand(access.settings)
    if refusal:
        raise PermanentError(refusal)
    selected = set(chosen)
    names = [name for name in reader.names(DUMP) if reader.unit(name) in selected]
    data = data_directory(access)
    with offline.stopped(access, cleanup), offline.helper(access):
        require_room(access, reader, chosen, data)
        with cleanup.replacing(chosen):
            for name in names:
                database = reader.unit(name).partition(" ")[2]
                offline.load(access, database, reader.size(name), reader.stream(name))
    offline.await_ready(access, offline.start_seconds(sum(reader.size(name) for name in names)))
    return []


def measure(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """What the live databases hold now."""
    form = form_of(reader.manifest)

    def ask() -> list[Measure]:
        member = access.endpoint(offline.POD, PORT)
        names = (unit.partition(" ")[2] for unit in chosen)
        return [
            measure
            for name in names
            for measure in (
                [measure_users(access, member)]
                if name == SYSTEM
                else measure_database(access, member, name, form)
            )
        ]

    try:
        return until_answered(ask, offline.START_SECONDS)
    except AuthError as exc:
        raise PermanentError(f"Neo4j: {exc}") from exc


def wanted(reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """The manifest's measures of the databases; those of the users with `system`, which holds them."""
    units = {ACCOUNTS if unit == f"database {SYSTEM}" else unit for unit in chosen}
    return [measure for measure in reader.manifest.fingerprint if measure.unit in units]


def by_hand(settings: Settings) -> str:
    """An Enterprise cluster seeds its members itself, which could not be tested here."""
    if settings.components.neo4j.edition == "community":
        return ""
    return "an Enterprise cluster is restored by hand: docs/restore-by-hand.md, Neo4j"


LIVE = Live(
    units,
    without_fence("the member is stopped while its databases are loaded"),
    replace,
    measure,
    writers="Neo4j is stopped while its databases are loaded; what was written since the safety backup is lost",
    server_wide=(f"database {SYSTEM}",),
    wanted=wanted,
    can_take=can_take,
    by_hand=by_hand,
)
