"""Replaces databases of the live cluster by those of a backup. At every moment one of the two exists.

The old database is renamed, not dropped: a person drops it later. It is read-only from the safety backup on. The new
one accepts no clients until it was compared. Everything is done on the primary; the standbys follow.

Existing roles are not changed. Missing roles that the databases need are created. The unit `globals` has everything
that belongs to the whole server: all roles, and the settings of ALTER SYSTEM on every member.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from archive.backup.cleanup_journal import CleanupJournal, HalfReplaced
from archive.backup.manifest import Measure
from archive.backup.reader import SetReader
from archive.streams.spool import prepare_spool
from components.access import Access
from components.base import Live, RunningScratch
from components.postgresql.catalog.properties import FORM, Globals, stored_globals
from components.postgresql.catalog.roles import create_missing, restore_roles
from components.postgresql.catalog.settings import read_system, restore_system
from components.postgresql.catalog.statements import role_statements
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
from components.postgresql.connection.failures import explained
from components.postgresql.connection.session import SESSION
from components.postgresql.dumps.filling import Server, fill, make_database, prepare
from components.postgresql.dumps.truncation import save_dump
from components.postgresql.fingerprint import (
    GLOBAL_UNIT,
    items_of,
    measure_database,
    measure_globals,
    measure_system,
)
from components.postgresql.measures.definitions import SYSTEM_ITEM
from components.postgresql.replacement.aside import (
    ASIDE,
    aside,
    close_unfinished,
    databases,
    end_sessions,
    reopen,
    statement,
    undo,
)
from components.postgresql.replacement.exchange import ALWAYS_THERE, READ_ONLY, beside, successor
from components.postgresql.replacement.refusals import refusals
from components.postgresql.replacement.remarks import remarks
from components.postgresql.restore import DUMP, GLOBALS

READ_WRITE = "ALTER DATABASE {} RESET default_transaction_read_only"


def units(reader: SetReader) -> dict[str, int]:
    """Roles and settings of the server, and databases of the backup, with their sizes.

    Databases that an earlier restore renamed are left out.
    """
    artefacts = [*reader.names(FORM), *reader.names(DUMP)]
    sizes = {reader.unit(name): reader.size(name) for name in artefacts}
    return {unit: size for unit, size in sizes.items() if not ASIDE.search(unit)}


@contextmanager
def fence(access: Access, chosen: Iterable[str]) -> Iterator[str]:
    """Make the databases read-only inside the block. At the end, open the databases that have these names then.

    A killed restore is undone first, so that the old database is fenced and backed up.
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
    """Replace live databases by those of the backup, and the server's roles and settings if `globals` is chosen.

    Returns:
        Remarks for the report: names of the old databases, and roles that were created.

    Raises:
        Damaged: an artefact differs from what was stored.
        PermanentError, TemporaryError: PostgreSQL refuses something. The old database has its name again, unless the
            message says otherwise.
    """
    selected = set(chosen)
    for note in cleanup.earlier(HalfReplaced):
        if selected.issuperset(note.replacing):
            cleanup.release(note)  # the fence has renamed those databases back
    with at_primary(access) as connection:
        version = connection.info.server_version
    if _databases_of(selected):
        prepare(_server(access, version))
    backup = stored_globals(reader)
    lines = _bring_roles(access, reader, backup, selected)
    spool = access.settings.backup.spool
    with tempfile.TemporaryDirectory(dir=prepare_spool(spool)) as directory:
        for artefact in reader.names(DUMP):
            if reader.unit(artefact) not in selected:
                continue
            (name,) = _databases_of([reader.unit(artefact)])
            dump = save_dump(reader, artefact, Path(directory) / "database.dump")
            if name in ALWAYS_THERE:
                old = _exchange(access, version, name, dump, reader, backup)
            else:
                old = _restore_aside(access, version, name, dump, cleanup)
            dump.unlink()
            if old:
                lines.append(
                    f'the old database is kept as "{old}": drop it when it is no longer needed'
                )
    if GLOBAL_UNIT in selected and backup is not None:
        lines += _bring_settings(access, backup)
    return lines


def measure(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """Measure the live databases, and the roles that are in the backup."""
    measures: list[Measure] = []
    units, fingerprint = set(chosen), reader.manifest.fingerprint
    for name in _databases_of(units):
        with at_primary(access, name, *SESSION) as connection:
            measures += measure_database(
                connection, name, items_of(fingerprint, f"database {name}")
            )
    backup = stored_globals(reader) if GLOBAL_UNIT in units else None
    if backup is not None:
        items = items_of(fingerprint, GLOBAL_UNIT)
        with at_primary(access, SUPERUSER, *SESSION) as connection:
            measures += measure_globals(connection, items, backup.roles.names)
            if SYSTEM_ITEM in items:
                measures.append(measure_system(read_system(connection)))
    return measures


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
    access: Access, reader: SetReader, backup: Globals | None, chosen: set[str]
) -> list[str]:
    """Create missing roles; if `globals` is chosen, restore all roles. Returns remarks for the report."""
    names = _databases_of(chosen)
    with at_primary(access, MAINTENANCE, *SESSION) as connection:
        existing = {
            name for (name,) in connection.execute("SELECT rolname FROM pg_roles").fetchall()
        }
        if backup is None:  # an older backup does not say which roles a database needs
            text = reader.read(GLOBALS).decode()
            with connection.transaction():
                for creation in role_statements(text, lambda name: name not in existing):
                    connection.execute(creation.encode())
            query = "SELECT rolname FROM pg_roles WHERE rolname <> ALL (%s) ORDER BY 1"
            created = [name for (name,) in connection.execute(query, [list(existing)]).fetchall()]
            omitted: list[str] = []
        elif GLOBAL_UNIT in chosen:
            created, omitted = restore_roles(connection, backup.roles), []
        else:
            created = create_missing(connection, backup.roles, backup.roles.for_databases(names))
            omitted = sorted(set(backup.roles.names) - existing - set(created))
    lines = [f"restored with the passwords of the backup: {', '.join(created)}"] if created else []
    if omitted:
        lines.append(
            f"not restored, because these databases do not need them: roles {', '.join(omitted)}; "
            f"`--unit {GLOBAL_UNIT}` restores them"
        )
    return lines


def _bring_settings(access: Access, backup: Globals) -> list[str]:
    """Restore the settings of ALTER SYSTEM on every member. Returns which of them need a restart."""
    lines = []
    members = access.settings.components.postgresql.members
    for node in access.endpoints(STATEFULSET, members, PORT):
        with explained(node.member), connect_long(access, node) as connection:
            pending = restore_system(connection, backup.system)
        if pending:
            lines.append(f"{node.member}: {', '.join(pending)} take effect after a restart")
    return lines


def _server(access: Access, version: int) -> Server:
    """The current primary."""
    return Server(access, primary(access), version, access.secret(SECRET, "postgres-password"))


def _restore_aside(
    access: Access, version: int, name: str, dump: Path, cleanup: CleanupJournal
) -> str:
    """Restore a database while the old one has another name. Returns that name."""
    server = _server(access, version)
    with aside(access, name, cleanup) as old:
        # created empty and closed first, so that no client sees a database without its data
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
    expected = [measure for measure in reader.manifest.fingerprint if measure.unit == unit]
    if _counted(expected) == _counted(measure(access, reader, [unit])):
        return ""
    properties = {database.name: database for database in backup.databases} if backup else {}
    with successor(access, name, properties.get(name)) as (new, old):
        fill(_server(access, version), new, dump)
    return old


def _counted(measures: Iterable[Measure]) -> dict[str, tuple[int, int | None, str]]:
    """Counts and digests of a unit's items, for a comparison."""
    return {measure.item: (measure.count, measure.until, measure.digest) for measure in measures}
