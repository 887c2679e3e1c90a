"""Finds out, before the old databases are renamed, why a live server would refuse databases of a backup.

Free disk space is not checked: SQL cannot show it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
from psycopg import sql

from archive.backup.manifest import Manifest
from archive.backup.reader import SetReader
from components.access import Access
from components.postgresql.catalog.properties import Globals, Properties, stored_globals
from components.postgresql.client import PORT, STATEFULSET, at_primary, connect_long
from components.postgresql.fingerprint import GLOBAL_UNIT
from components.questions import ask_members

# pg_restore with two jobs, and the sessions that close and rename databases and end other sessions.
CONNECTIONS = 6
FREE = """
    SELECT current_setting('max_connections')::int - count(*)
    FROM pg_stat_activity WHERE backend_type = 'client backend'
"""
PREPARED = "SELECT database, array_agg(gid ORDER BY gid) FROM pg_prepared_xacts GROUP BY 1"


def refusals(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[str]:
    """Why the server would refuse units of a backup: a line `UNIT: reason` each.

    Args:
        access: addresses and credentials.
        reader: the backup.
        chosen: units.

    Raises:
        Damaged: the backup's description of its databases cannot be read.
        TemporaryError: there is no primary.
    """
    units = list(chosen)
    backup, manifest = stored_globals(reader), reader.manifest
    with at_primary(access) as connection:
        lines = [f"{unit}: {why}" for why in _of_server(connection, manifest) for unit in units]
        for unit in units:
            if unit != GLOBAL_UNIT:
                name = unit.partition(" ")[2]
                lines += [f"{unit}: {why}" for why in _of_database(connection, manifest, name)]
        if backup is not None:
            by_unit = {f"database {database.name}": database for database in backup.databases}
            for unit in units:
                if unit in by_unit:
                    lines += [f"{unit}: {why}" for why in _of_shell(connection, by_unit[unit])]
    if GLOBAL_UNIT in units and backup is not None:
        lines += [f"{GLOBAL_UNIT}: {why}" for why in _of_settings(access, backup)]
    return lines


# ---------------------------------------------------------------------- inside
def _of_server(connection: psycopg.Connection[Any], manifest: Manifest) -> Iterator[str]:
    """Reasons that concern every unit."""
    live_version, backup_version = (
        connection.info.server_version // 10000,
        manifest.engine.version.split(".")[0],
    )
    if backup_version.isdigit() and int(backup_version) > live_version:
        yield f"the backup is from PostgreSQL {backup_version}, but the server is older: {live_version}"
    row = connection.execute(FREE).fetchone()
    if row is not None and row[0] < CONNECTIONS:
        yield f"a restore needs {CONNECTIONS} connections, but {max(row[0], 0)} are free"


def _of_database(
    connection: psycopg.Connection[Any], manifest: Manifest, name: str
) -> Iterator[str]:
    available = {
        name
        for (name,) in connection.execute("SELECT name FROM pg_available_extensions").fetchall()
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
    """Extensions of a database. A manifest has them as `DATABASE.EXTENSION`; both names may contain dots."""
    names = [c.unit.partition(" ")[2] for c in manifest.consistency if c.unit != "all databases"]
    extensions = []
    for key in manifest.engine.extensions:
        owner = max((name for name in names if key.startswith(f"{name}.")), key=len, default="")
        if owner == name:
            extensions.append(key[len(name) + 1 :])
    return extensions


def _of_shell(connection: psycopg.Connection[Any], properties: Properties) -> Iterator[str]:
    """Reasons why the database itself could not be created."""
    tablespaces = {
        name for (name,) in connection.execute("SELECT spcname FROM pg_tablespace").fetchall()
    }
    for tablespace in properties.tablespaces:
        if tablespace not in tablespaces:
            yield f"it uses tablespace {tablespace}, which the server does not have: CREATE TABLESPACE"
    libc = properties.provider == "c"
    locales = {properties.collate, properties.ctype} if libc else {properties.locale or ""}
    for locale in sorted(locales - {"", "C", "POSIX"}):
        if not _has_locale(connection, properties.provider, locale):
            yield f"it needs locale {locale}, which is not installed on the server"


def _has_locale(connection: psycopg.Connection[Any], provider: str, locale: str) -> bool:
    """Whether the server has a locale. Tested by creating a collation that is never committed."""
    name = {"c": "libc", "i": "icu"}.get(provider, "builtin")
    text = sql.SQL("CREATE COLLATION pg_temp.isa_locale (provider = {}, locale = {})")
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(text.format(sql.Identifier(name), sql.Literal(locale)))
    except (psycopg.ProgrammingError, psycopg.NotSupportedError, psycopg.DataError):
        return False
    return True


def _of_settings(access: Access, backup: Globals) -> Iterator[str]:
    """Members that do not answer, because they would keep their old settings, and settings that a member lacks."""
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
