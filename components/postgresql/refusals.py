"""Why a live server would refuse databases of a backup: asked before the old ones are put aside.

How much room its disk has is the one thing that SQL cannot say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
from psycopg import sql

from archive.manifest import Manifest
from archive.reader import SetReader
from components.access import Access
from components.postgresql.client import PORT, STATEFULSET, at_primary, connect_long
from components.postgresql.fingerprint import GLOBAL_UNIT
from components.postgresql.properties import Globals, Properties, stored_globals
from components.questions import ask_members

# pg_restore with its two jobs, what closes and renames, and what ends sessions in the meantime.
CONNECTIONS = 6
FREE = """
    SELECT current_setting('max_connections')::int - count(*)
    FROM pg_stat_activity WHERE backend_type = 'client backend'
"""
PREPARED = "SELECT database, array_agg(gid ORDER BY gid) FROM pg_prepared_xacts GROUP BY 1"


def refusals(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[str]:
    """What the server lacks for units of a backup.

    Args:
        access: the way in.
        reader: of the backup.
        chosen: units.

    Returns:
        `UNIT: reason` each.

    Raises:
        Damaged: the backup's own word of its databases cannot be read.
        TemporaryError: there is no primary to ask.
    """
    units = list(chosen)
    backup, manifest = stored_globals(reader), reader.manifest
    with at_primary(access) as connection:
        found = [f"{unit}: {why}" for why in _of_server(connection, manifest) for unit in units]
        for unit in units:
            if unit != GLOBAL_UNIT:
                name = unit.partition(" ")[2]
                found += [f"{unit}: {why}" for why in _of_database(connection, manifest, name)]
        if backup is not None:
            known = {f"database {database.name}": database for database in backup.databases}
            for unit in units:
                if unit in known:
                    found += [f"{unit}: {why}" for why in _of_shell(connection, known[unit])]
    if GLOBAL_UNIT in units and backup is not None:
        found += [f"{GLOBAL_UNIT}: {why}" for why in _of_settings(access, backup)]
    return found


# ---------------------------------------------------------------------- inside
def _of_server(connection: psycopg.Connection[Any], manifest: Manifest) -> Iterator[str]:
    """What no unit could be restored for."""
    ours, theirs = connection.info.server_version // 10000, manifest.engine.version.split(".")[0]
    if theirs.isdigit() and int(theirs) > ours:
        yield f"the backup is from PostgreSQL {theirs}, but the server is older: {ours}"
    row = connection.execute(FREE).fetchone()
    if row is not None and row[0] < CONNECTIONS:
        yield f"a restore needs {CONNECTIONS} connections, but {max(row[0], 0)} are free"


def _of_database(
    connection: psycopg.Connection[Any], manifest: Manifest, name: str
) -> Iterator[str]:
    available = {
        one for (one,) in connection.execute("SELECT name FROM pg_available_extensions").fetchall()
    }
    for extension in _extensions(manifest, name):
        if extension not in available:
            yield f"it needs extension {extension}, which the server does not have: install it first"
    prepared = dict(connection.execute(PREPARED).fetchall()).get(name)
    if prepared:
        yield (
            f"prepared transactions lock the current data ({', '.join(prepared)}), and no backup holds them: COMMIT "
            "PREPARED or ROLLBACK PREPARED them first"
        )


def _extensions(manifest: Manifest, name: str) -> list[str]:
    """Extensions of a database; a manifest has them as `DATABASE.EXTENSION`, and either may hold a dot."""
    names = [c.unit.partition(" ")[2] for c in manifest.consistency if c.unit != "all databases"]
    found = []
    for key in manifest.engine.extensions:
        owner = max((name for name in names if key.startswith(f"{name}.")), key=len, default="")
        if owner == name:
            found.append(key[len(name) + 1 :])
    return found


def _of_shell(connection: psycopg.Connection[Any], wanted: Properties) -> Iterator[str]:
    """What the database itself could not be made for."""
    there = {one for (one,) in connection.execute("SELECT spcname FROM pg_tablespace").fetchall()}
    for tablespace in wanted.tablespaces:
        if tablespace not in there:
            yield f"it uses tablespace {tablespace}, which the server does not have: CREATE TABLESPACE"
    libc = wanted.provider == "c"
    locales = {wanted.collate, wanted.ctype} if libc else {wanted.locale or ""}
    for locale in sorted(locales - {"", "C", "POSIX"}):
        if not _has_locale(connection, wanted.provider, locale):
            yield f"it needs locale {locale}, which is not installed on the server"


def _has_locale(connection: psycopg.Connection[Any], provider: str, locale: str) -> bool:
    """Whether the server can compare texts so: it is tried by a collation that is never committed."""
    name = {"c": "libc", "i": "icu"}.get(provider, "builtin")
    text = sql.SQL("CREATE COLLATION pg_temp.isa_locale (provider = {}, locale = {})")
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(text.format(sql.Identifier(name), sql.Literal(locale)))
    except (psycopg.ProgrammingError, psycopg.NotSupportedError, psycopg.DataError):
        return False
    return True


def _of_settings(access: Access, backup: Globals) -> Iterator[str]:
    """What settings could not be made for; a member that is away would keep its own."""
    members = access.settings.components.postgresql.members

    def known(node: Any) -> set[str]:
        with connect_long(access, node) as connection:
            rows = connection.execute("SELECT name FROM pg_settings").fetchall()
        return {name for (name,) in rows}

    answers = ask_members(access.endpoints(STATEFULSET, members, PORT), known)
    for member, why in answers.bad.items():
        yield f"{member} could not be given its settings: {why}"
    for member, names in answers.good.items():
        unknown = sorted(name for name in backup.system if name not in names)
        if unknown:
            yield f"{member} does not know {', '.join(unknown)}: is a library missing?"
