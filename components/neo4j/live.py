"""Replaces databases of a live Neo4j Community by those of a backup, while its member is stopped.

The database `system` has the users and their passwords. In a server in use it is replaced only if it is named; a
rebuilt or lost server gets it with all other databases. An Enterprise cluster is restored by hand
(docs/restore-by-hand.md), because its members must be seeded from each other.
"""

from __future__ import annotations

from collections.abc import Iterable

from neo4j.exceptions import AuthError

from archive.backup.cleanup_journal import CleanupJournal
from archive.backup.manifest import Measure
from archive.backup.reader import SetReader
from components.access import Access
from components.base import Live, RunningScratch, without_fence
from components.neo4j.client import PORT, until_answered
from components.neo4j.compatibility import can_take, data_directory, require_room
from components.neo4j.editions import offline
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
    """Load databases over the live ones while the member is stopped. The member is always started again.

    If the run is killed, the next restore or backup starts it, by the entry in the journal.

    Raises:
        Damaged: a dump differs from what was stored.
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
    """Measure the live databases."""
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
    """The manifest's measures of the databases. The users belong to `system`."""
    units = {ACCOUNTS if unit == f"database {SYSTEM}" else unit for unit in chosen}
    return [measure for measure in reader.manifest.fingerprint if measure.unit in units]


def by_hand(settings: Settings) -> str:
    """Why this Neo4j is restored by hand; "" for Community. Seeding an Enterprise cluster could not be tested."""
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
