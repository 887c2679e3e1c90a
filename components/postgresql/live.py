"""Replaces databases of the live cluster by those of a backup, without ever having neither.

The old database is renamed, not dropped: it stays beside the new one until a person drops it. From the safety backup
on it is read-only; the new one accepts no clients until it was compared. Everything goes through the primary, so the
standbys follow by themselves.

Roles that are there stay as they are, whatever databases are restored; those that the databases need and that are gone
come back. What belongs to the server as a whole is a unit of its own: all roles, and what ALTER SYSTEM set, on every
member.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from archive.cleanup_journal import CleanupJournal, HalfReplaced
from archive.manifest import Measure
from archive.reader import SetReader
from archive.spool import prepare_spool
from components.access import Access
from components.base import Live, RunningScratch
from components.postgresql.aside import (
    ASIDE,
    aside,
    close_unfinished,
    databases,
    end_sessions,
    reopen,
    statement,
    undo,
)
from components.postgresql.client import (
    MAINTENANCE,
    PORT,
    SECRET,
    STATEFULSET,
    SUPERUSER,
    at_primary,
    connect_long,
    primary,
)
from components.postgresql.definitions import SYSTEM_ITEM
from components.postgresql.exchange import ALWAYS_THERE, READ_ONLY, beside, successor
from components.postgresql.failures import explained
from components.postgresql.filling import Server, fill, make_database, prepare
from components.postgresql.fingerprint import (
    GLOBAL_UNIT,
    items_of,
    measure_database,
    measure_globals,
    measure_system,
)
from components.postgresql.properties import FORM, Globals, stored_globals
from components.postgresql.refusals import refusals
from components.postgresql.remarks import remarks
from components.postgresql.restore import DUMP, GLOBALS
from components.postgresql.roles import create_missing, restore_roles
from components.postgresql.session import SESSION
from components.postgresql.settings import read_system, restore_system
from components.postgresql.statements import role_statements
from components.postgresql.truncation import save_dump

READ_WRITE = "ALTER DATABASE {} RESET default_transaction_read_only"


def units(reader: SetReader) -> dict[str, int]:
    """Roles and settings of the server, and databases of the backup, with their sizes; not what an earlier restore has
    put aside.
    """
    artefacts = [*reader.names(FORM), *reader.names(DUMP)]
    sizes = {reader.unit(name): reader.size(name) for name in artefacts}
    return {unit: size for unit, size in sizes.items() if not ASIDE.search(unit)}


@contextmanager
def fence(access: Access, chosen: Iterable[str]) -> Iterator[str]:
    """Make the databases read-only; on leaving, open what has their names then.

    A restore that was killed is undone first, so that it is the old database that is fenced and backed up.
    """
    names = _databases_of(chosen)
    for name in names:
        with at_primary(access, beside(name)) as connection:
            undo(connection, name)
    try:
        for name in names:
            with at_primary(access, beside(name)) as connection:
                if name in databases(connection):
                    connection.execute(statement(READ_ONLY, name))
                    end_sessions(connection, name)
        yield "the databases are read-only, and refuse connections while they are restored"
    finally:
        for name in names:
            with at_primary(access, beside(name)) as connection:
                undo(connection, name)
                if name in databases(connection):
                    connection.execute(statement(READ_WRITE, name))
                    reopen(connection, name)


def replace(
    access: Access,
    served: RunningScratch | None,
    reader: SetReader,
    chosen: Iterable[str],
    cleanup: CleanupJournal,
) -> list[str]:
    """Restore databases in the place of the live ones, and what belongs to the server if it is chosen.

    Returns:
        What is kept of the old ones, and what was made beside the units, for people.

    Raises:
        Damaged: an artefact is not what was stored.
        PermanentError, TemporaryError: PostgreSQL does not take it; the old database has its name back, or the words
            say that it has not.
    """
    wanted = set(chosen)
    for held in cleanup.earlier(HalfReplaced):
        if wanted.issuperset(held.replacing):
            cleanup.release(held)  # the fence has given those their names back
    with at_primary(access) as connection:
        version = connection.info.server_version
    if _databases_of(wanted):
        prepare(_server(access, version))
    backup = stored_globals(reader)
    told = _bring_roles(access, reader, backup, wanted)
    spool = access.settings.backup.spool
    with tempfile.TemporaryDirectory(dir=prepare_spool(spool)) as directory:
        for artefact in reader.names(DUMP):
            if reader.unit(artefact) not in wanted:
                continue
            (name,) = _databases_of([reader.unit(artefact)])
            dump = save_dump(reader, artefact, Path(directory) / "database.dump")
            if name in ALWAYS_THERE:
                old = _exchange(access, version, name, dump, reader, backup)
            else:
                old = _restore_aside(access, version, name, dump, cleanup)
            dump.unlink()
            if old:
                told.append(
                    f'the old database is kept as "{old}": drop it when it is no longer needed'
                )
    if GLOBAL_UNIT in wanted and backup is not None:
        told += _bring_settings(access, backup)
    return told


def measure(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """What the live databases hold now; of roles those that the backup has."""
    found: list[Measure] = []
    units, fingerprint = set(chosen), reader.manifest.fingerprint
    for name in _databases_of(units):
        with at_primary(access, name, *SESSION) as connection:
            found += measure_database(connection, name, items_of(fingerprint, f"database {name}"))
    backup = stored_globals(reader) if GLOBAL_UNIT in units else None
    if backup is not None:
        items = items_of(fingerprint, GLOBAL_UNIT)
        with at_primary(access, SUPERUSER, *SESSION) as connection:
            found += measure_globals(connection, items, backup.roles.names)
            if SYSTEM_ITEM in items:
                found.append(measure_system(read_system(connection)))
    return found


LIVE = Live(
    units,
    fence,
    replace,
    measure,
    writers="the databases are read-only from the safety backup on, and closed while they are restored and compared",
    can_take=refusals,
    fences=True,
    accounts="missing roles that the databases need come back with their old passwords; existing roles keep their "
    "passwords, and all their permissions and settings unless `globals` is restored",
    remarks=remarks,
    server_wide=(GLOBAL_UNIT, *(f"database {name}" for name in ALWAYS_THERE)),
    beside=True,
)


# ---------------------------------------------------------------------- inside
def _databases_of(chosen: Iterable[str]) -> list[str]:
    """Names of the databases among units."""
    return [unit.partition(" ")[2] for unit in chosen if unit != GLOBAL_UNIT]


def _bring_roles(
    access: Access, reader: SetReader, backup: Globals | None, wanted: set[str]
) -> list[str]:
    """Make the roles that are gone; with the server's own unit make all of them what they were."""
    names = _databases_of(wanted)
    with at_primary(access, MAINTENANCE, *SESSION) as connection:
        there = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles").fetchall()}
        if backup is None:  # an older backup: which roles a database needs is not known
            text = reader.read(GLOBALS).decode()
            with connection.transaction():
                for one in role_statements(text, lambda name: name not in there):
                    connection.execute(one.encode())
            query = "SELECT rolname FROM pg_roles WHERE rolname <> ALL (%s) ORDER BY 1"
            made = [name for (name,) in connection.execute(query, [list(there)]).fetchall()]
            left: list[str] = []
        elif GLOBAL_UNIT in wanted:
            made, left = restore_roles(connection, backup.roles), []
        else:
            made = create_missing(connection, backup.roles, backup.roles.for_databases(names))
            left = sorted(set(backup.roles.names) - there - set(made))
    told = [f"restored with the passwords of the backup: {', '.join(made)}"] if made else []
    if left:
        told.append(
            f"not restored, because these databases do not need them: roles {', '.join(left)}; `--unit {GLOBAL_UNIT}` "
            "restores them"
        )
    return told


def _bring_settings(access: Access, backup: Globals) -> list[str]:
    """Make the settings of ALTER SYSTEM the backup's, on every member; gives what has to be restarted for it."""
    told = []
    members = access.settings.components.postgresql.members
    for node in access.endpoints(STATEFULSET, members, PORT):
        with explained(node.member), connect_long(access, node) as connection:
            pending = restore_system(connection, backup.system)
        if pending:
            told.append(f"{node.member}: {', '.join(pending)} take effect after a restart")
    return told


def _server(access: Access, version: int) -> Server:
    """The primary that there is now."""
    return Server(access, primary(access), version, access.secret(SECRET, "postgres-password"))


def _restore_aside(
    access: Access, version: int, name: str, dump: Path, cleanup: CleanupJournal
) -> str:
    """Restore a database while the old one has another name; gives that."""
    server = _server(access, version)
    with aside(access, name, cleanup) as old:
        # the database itself first, so that it can be closed before there is something to see
        make_database(server, dump)
        with at_primary(access) as connection:
            close_unfinished(connection, name)
        fill(server, name, dump)
    return old


def _exchange(
    access: Access,
    version: int,
    name: str,
    dump: Path,
    reader: SetReader,
    backup: Globals | None,
) -> str:
    """Restore a database that must always exist; returns the name of the old one, "" if it needs no restore."""
    unit = f"database {name}"
    wanted = [measure for measure in reader.manifest.fingerprint if measure.unit == unit]
    if _counted(wanted) == _counted(measure(access, reader, [unit])):
        return ""
    properties = {database.name: database for database in backup.databases} if backup else {}
    with successor(access, name, properties.get(name)) as (new, old):
        fill(_server(access, version), new, dump)
    return old


def _counted(measures: Iterable[Measure]) -> dict[str, tuple[int, int | None, str]]:
    """What was counted of one unit, to be compared."""
    return {measure.item: (measure.count, measure.until, measure.digest) for measure in measures}
