"""Settings that the server keeps: of roles and databases, and those of ALTER SYSTEM, which each member has for itself.

A setting is kept as `name=value`, and made again by a statement whose name and value the client library quotes. What
recovery and replication write into the same file of one member (postgresql.auto.conf) is not an operator's setting.
https://www.postgresql.org/docs/18/sql-altersystem.html, https://www.postgresql.org/docs/18/view-pg-file-settings.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import psycopg
from psycopg import sql

# `variable_is_guc_list_quote` in src/bin/pg_dump/dumputils.c: each part of these is an identifier by itself.
LISTS = frozenset(
    ("local_preload_libraries", "search_path", "session_preload_libraries", "shared_preload_libraries",
     "temp_tablespaces", "unix_socket_directories")
)  # fmt: skip
# Where a member gets its WAL from, and how far it recovers: repmgr, pg_basebackup and other backup tools write these.
OF_ONE_MEMBER = frozenset(
    ("primary_conninfo", "primary_slot_name", "restore_command", "archive_cleanup_command", "recovery_end_command",
     "promote_trigger_file", "cluster_name")
)  # fmt: skip
RECOVERY = "recovery_target"
SYSTEM = """
    SELECT DISTINCT ON (name) name, setting FROM pg_file_settings
    WHERE sourcefile LIKE '%postgresql.auto.conf' AND name IS NOT NULL ORDER BY name, seqno DESC
"""
# The view reads the file itself: it knows at once which settings a running server cannot apply.
RESTART = """
    SELECT DISTINCT name FROM pg_file_settings
    WHERE sourcefile LIKE '%postgresql.auto.conf' AND name IS NOT NULL AND error IS NOT NULL ORDER BY 1
"""


def set_values(
    connection: psycopg.Connection[Any], subject: sql.Composable, settings: Iterable[str]
) -> None:
    """Make settings again.

    Args:
        connection: to the server.
        subject: whose: `ALTER ROLE "x"`, `ALTER DATABASE "x"`, `ALTER SYSTEM`.
        settings: each `name=value`, as the catalogue keeps it.
    """
    for setting in settings:
        name, _, value = setting.partition("=")
        parts = split_list(value) if name.lower() in LISTS else [value]
        values = sql.SQL(", ").join(sql.Literal(part) for part in parts or [""])
        text = sql.SQL("{} SET {} TO {}")
        connection.execute(text.format(subject, sql.Identifier(*name.split(".")), values))


def read_system(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """Settings made by ALTER SYSTEM on this member."""
    rows = connection.execute(SYSTEM.encode()).fetchall()
    return {
        str(name): str(value)
        for name, value in rows
        if name not in OF_ONE_MEMBER and not name.startswith(RECOVERY)
    }


def restore_system(connection: psycopg.Connection[Any], wanted: Mapping[str, str]) -> list[str]:
    """Make the settings of ALTER SYSTEM of one member those of a backup.

    Args:
        connection: to the member, outside of a transaction.
        wanted: name → value.

    Returns:
        Names of settings that count after a restart only.
    """
    there = read_system(connection)
    system = sql.SQL("ALTER SYSTEM")
    for name in there.keys() - wanted.keys():
        connection.execute(
            sql.SQL("ALTER SYSTEM RESET {}").format(sql.Identifier(*name.split(".")))
        )
    for name, value in wanted.items():
        if there.get(name) != value:
            set_values(connection, system, [f"{name}={value}"])
    if there != dict(wanted):
        connection.execute("SELECT pg_reload_conf()")
    return [str(name) for (name,) in connection.execute(RESTART.encode()).fetchall()]


def spaced(value: str) -> str:
    """A list as the server writes it: in a file, or by `FROM CURRENT`, its parts may stand without a space."""
    return re.sub(r"\s*,\s*", ", ", value)


def split_list(value: str) -> list[str]:
    """Parts of a list of identifiers: `SplitGUCList` in src/bin/pg_dump/dumputils.c."""
    if value.count('"') % 2:
        return [value]  # no list that the server printed
    parts: list[str] = []
    rest = value.strip()
    while rest:
        if rest.startswith('"'):
            end = 1
            while True:
                end = rest.index('"', end)
                if rest[end : end + 2] != '""':
                    break
                end += 2
            part, rest = rest[1:end].replace('""', '"'), rest[end + 1 :].strip()
        else:
            part, comma, behind = rest.partition(",")
            part, rest = part.strip(), comma + behind
        parts.append(part)
        rest = rest.removeprefix(",").strip()
    return parts
