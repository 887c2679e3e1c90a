"""Chooses the node to back up: a standby that has caught up with the primary, otherwise the primary."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from cluster.polling import polling
from components.access import Access, Endpoint
from components.postgresql.catalog.settings import read_system
from components.postgresql.client import (
    PORT,
    STATEFULSET,
    NodeStatus,
    answered_within,
    connect_long,
    node_status,
)
from components.questions import ask_members, words
from errors import TemporaryError

log = logging.getLogger(__name__)

CATCH_UP_SECONDS, CATCH_UP_PAUSE = 20.0, 0.1  # a standby that needs longer is not used
NO_NODE = "no primary, and no standby that streams"
# repmgr's tables describe the nodes of this cluster; template0 belongs to the server and never changes.
LEFT_OUT = ("repmgr", "template0")
RECEIVER = """
    SELECT status, pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::bigint
    FROM pg_stat_wal_receiver
"""
DATABASES = """
    SELECT datname, datallowconn, datconnlimit, pg_database_size(oid) FROM pg_database
    WHERE datname <> ALL (%s) ORDER BY datname
"""
# DATCONNLIMIT_INVALID_DB in src/include/catalog/pg_database.h
INVALID = -2
CLOSED = (
    "it allows no connections, so it cannot be dumped: ALTER DATABASE … ALLOW_CONNECTIONS true CONNECTION LIMIT 0 "
    "allows only superusers"
)
HALF_DROPPED = "a DROP DATABASE was interrupted, so it cannot be used any more: DROP DATABASE again"


@dataclass(frozen=True)
class Source:
    """The node that is backed up.

    Attributes:
        node: its address.
        node_status: its own status.
        databases: name → size in bytes.
        unreadable: name of a database that cannot be backed up → why.
        tablespaces: names of additional tablespaces.
        system: settings of ALTER SYSTEM on the primary; on the node itself if there is no primary.
        scratch: whether it is a scratch server, which nobody writes to.
    """

    node: Endpoint
    node_status: NodeStatus
    databases: dict[str, int]
    unreadable: dict[str, str]
    tablespaces: tuple[str, ...]
    system: dict[str, str]
    scratch: bool = False

    @property
    def still(self) -> bool:
        """Whether nobody can change a table while it is backed up."""
        return self.node_status.standby or self.scratch


def scratch_source(access: Access, node: Endpoint, system: dict[str, str]) -> Source:
    """A scratch server.

    Args:
        access: to it.
        node: its address.
        system: settings of ALTER SYSTEM that a backup of it has.
    """
    status = node_status(access, node, superuser=True)
    with connect_long(access, node) as connection:
        return replace(_held_by(connection, node, status, system), scratch=True)


def choose_source(access: Access) -> Source:
    """A standby within the lag limit, after it has caught up with all current commits; otherwise the primary.

    Raises:
        TemporaryError: no node can be backed up.
    """
    config = access.settings.components.postgresql
    nodes = {e.member: e for e in access.endpoints(STATEFULSET, config.members, PORT)}
    answers = ask_members(
        nodes.values(),
        lambda node: (node_status(access, node, superuser=True), _behind(access, node)),
    )
    candidates = sorted(
        (behind, name)
        for name, (status, behind) in answers.good.items()
        if status.standby and behind is not None and behind <= config.max_lag_bytes
    )
    primaries = [name for name, (status, _) in answers.good.items() if not status.standby]
    primary = next(iter(primaries), None)
    name = primary
    if name is None:
        name = candidates[0][1] if candidates else None  # no other node could have more
    elif candidates:
        name = _caught_up(access, nodes[name], [nodes[status] for _, status in candidates]) or name
    if name is None:
        raise TemporaryError(
            f"no node of PostgreSQL can be backed up: {words(answers.bad) or NO_NODE}",
            delay=20,
        )
    with connect_long(access, nodes[primary or name]) as connection, answered_within(connection):
        system = read_system(connection)
    with connect_long(access, nodes[name]) as connection:
        return _held_by(connection, nodes[name], answers.good[name][0], system)


def _held_by(
    connection: psycopg.Connection[Any], node: Endpoint, status: NodeStatus, system: dict[str, str]
) -> Source:
    databases, unreadable = {}, {}
    for name, open_, limit, size in connection.execute(DATABASES, [list(LEFT_OUT)]).fetchall():
        if limit == INVALID:
            unreadable[name] = HALF_DROPPED
        elif not open_:
            unreadable[name] = CLOSED
        else:
            databases[name] = size
    tablespaces = connection.execute(
        "SELECT spcname FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY 1"
    ).fetchall()
    names = tuple(name for (name,) in tablespaces)
    return Source(node, status, databases, unreadable, names, system)


def _caught_up(access: Access, primary: Endpoint, standbys: list[Endpoint]) -> str | None:
    """The first standby to replay what the primary has now; None if none does in time.

    A backup says when it was begun, and a rebuild relies on it: what was committed before must be in it.
    """
    query = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
    try:
        with connect_long(access, primary) as connection, answered_within(connection):
            point = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
        for _ in polling(CATCH_UP_SECONDS, pause=CATCH_UP_PAUSE, sleep=time.sleep):
            for standby in standbys:
                with connect_long(access, standby) as connection, answered_within(connection):
                    if connection.execute(query, point).fetchone() == (True,):
                        return standby.member
            log.debug("no standby has replayed %s yet", point)
    except psycopg.Error as exc:
        raise TemporaryError(
            f"PostgreSQL: a node was lost at the start of its backup: {exc}", delay=15
        ) from exc
    return None


def _behind(access: Access, node: Endpoint) -> int | None:
    """Bytes of WAL that a standby has received and not replayed; None if it does not stream."""
    with connect_long(access, node) as connection, answered_within(connection):
        row = connection.execute(RECEIVER).fetchone()
    return int(row[1] or 0) if row is not None and row[0] == "streaming" else None
