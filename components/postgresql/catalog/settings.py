"""Reads and restores settings of roles and databases, and those of ALTER SYSTEM, which each member has for itself.

A setting is stored as `name=value` and set by a statement whose name and value the client library quotes. Recovery and
replication write into the same file of a member (postgresql.auto.conf); those entries are not an operator's settings.
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
    """Set settings.

    Args:
        connection: to the server.
        subject: beginning of the statement: `ALTER ROLE "x"`, `ALTER DATABASE "x"`, `ALTER SYSTEM`.
        settings: `name=value`, as in the catalog.
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


def restore_system(connection: psycopg.Connection[Any], saved: Mapping[str, str]) -> list[str]:
    """Restore the settings of ALTER SYSTEM on one member.

    Args:
        connection: to the member, outside of a transaction.
        saved: name → value.

    Returns:
        Names of settings that need a restart.
    """
    current = read_system(connection)
    system = sql.SQL("ALTER SYSTEM")
    for name in current.keys() - saved.keys():
        connection.execute(
            sql.SQL("ALTER SYSTEM RESET {}").format(sql.Identifier(*name.split(".")))
        )
    for name, value in saved.items():
        if current.get(name) != value:
            set_values(connection, system, [f"{name}={value}"])
    if current != dict(saved):
        connection.execute("SELECT pg_reload_conf()")
    return [str(name) for (name,) in connection.execute(RESTART.encode()).fetchall()]


def spaced(value: str) -> str:
    """A list as the server writes it. In a file, or by `FROM CURRENT`, spaces between the parts may be missing."""
    return re.sub(r"\s*,\s*", ", ", value)


def split_list(value: str) -> list[str]:
    """Parts of a list of identifiers: `SplitGUCList` in src/bin/pg_dump/dumputils.c."""
    if value.count('"') % 2:
        return [value]  # not a list written by the server
    parts: list[str] = []
    remaining = value.strip()
    while remaining:
        if remaining.startswith('"'):
            end = 1
            while True:
                end = remaining.index('"', end)
                if remaining[end : end + 2] != '""':
                    break
                end += 2
            part, remaining = remaining[1:end].replace('""', '"'), remaining[end + 1 :].strip()
        else:
            part, comma, tail = remaining.partition(",")
            part, remaining = part.strip(), comma + tail
        parts.append(part)
        remaining = remaining.removeprefix(",").strip()
    return parts
