"""Client for one node of PostgreSQL: connections, and the node's status.

Nodes are always asked directly. Through Pgpool the answering node is unknown, and snapshots belong to one node
(https://www.pgpool.net/docs/latest/en/html/backup.html).
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from calls import call, first_words
from cluster.command import Command
from components.access import Access, Endpoint
from components.postgresql.connection.failures import explained
from components.postgresql.connection.session import (
    COMMON,
    OF_SUPERUSER,
    OF_SUPERUSER_17,
    OWN,
    SINCE_17,
    TABLES_ONLY,
    WRITES,
    options,
)
from components.programs import find_program
from components.questions import PROBE, ask_members, words
from errors import TemporaryError

STATEFULSET = "postgresql-ha-postgresql"
PORT = 5432
OWNER = DATABASE = "isa"
SUPERUSER = "postgres"  # needed by backups and restores only: reads everything, replicates
SECRET = "postgresql-ha-auth"
BACKUP = "isa-cloud-backup"  # name of a backup's sessions
MAINTENANCE = "template1"  # the database to connect to while others are renamed
SCHEMA = PROBE.replace("-", "_")  # backups leave this schema out

CONNECT_SECONDS = 10
LOCK_TIMEOUT = "60s"  # how long a backup or a restore waits for a table
QUESTION_SECONDS = (
    20.0  # limit for short queries after a connection was accepted; they take milliseconds
)
# A lost peer is noticed after 10 + 3 × 5 s, or 25 s after data was sent and not acknowledged (tcp_user_timeout,
# milliseconds). The same limits apply to client and server.
ALIVE: dict[str, Any] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
ALIVE_SERVER = (
    "tcp_keepalives_idle=10",
    "tcp_keepalives_interval=5",
    "tcp_keepalives_count=3",
    "tcp_user_timeout=25s",
)

STANDING = f"""
    SELECT pg_is_in_recovery() AS standby, system_identifier::text AS system,
           timeline_id AS timeline, current_setting('server_version') AS version,
           current_setting('server_version_num')::int AS number,
           CASE WHEN pg_is_in_recovery() THEN
               CASE WHEN NOT pg_is_wal_replay_paused() THEN ''
                    WHEN EXISTS (SELECT FROM pg_stat_activity WHERE application_name = '{BACKUP}')
                    THEN 'a backup' ELSE 'hand' END
           ELSE '' END AS paused
    FROM pg_control_system(), pg_control_checkpoint()
"""


@dataclass(frozen=True)
class NodeStatus:
    """A node's own status.

    Attributes:
        standby: it replays another node's WAL.
        system: identifier of the database cluster; it must be the same on all nodes.
        timeline: grows with every promotion.
        version: the server's version as text.
        number: the server's version as a number, `180006`.
        paused: who paused its replay: `a backup` or `hand`; "" if it is not paused.
    """

    standby: bool
    system: str
    timeline: int
    version: str
    number: int = 0
    paused: str = ""


class Cursor(psycopg.Cursor[Any]):
    """A cursor whose statements are recorded with `calls.call`."""

    def execute(self, query: Any, *args: Any, **more: Any) -> Any:
        """As `psycopg.Cursor.execute`."""
        text = query if isinstance(query, (str, bytes)) else query.as_bytes(self)
        info = self.connection.info
        with call(f"PostgreSQL {info.host}:{info.port}/{info.dbname}: {first_words(text)}"):
            return super().execute(query, *args, **more)


def program(access: Access, name: str, password: str, server_version: int = 0) -> Command:
    """A client program with a password in its environment, where only its own user can read it.

    Args:
        access: has the directories of programs.
        name: name of the program.
        password: password of the role that it logs in as.
        server_version: for a superuser, the server's version as a number (`180006`); 0 for any other role.

    Raises:
        PermanentError: the program is not installed.
    """
    settings = [*WRITES, *COMMON, "client_min_messages=warning"]
    if server_version:
        settings += OF_SUPERUSER
    if server_version >= SINCE_17:
        settings += OF_SUPERUSER_17
    environ = {
        "PGPASSWORD": password,
        "PGAPPNAME": BACKUP,
        "PGOPTIONS": options(settings),
    }
    hint = "Install PostgreSQL's client programs of the server's major version or newer"
    return find_program(access, name, hint, environ)


def where(node: Endpoint, database: str = "", user: str = SUPERUSER) -> str:
    """Connection string of a node for client programs, without the password."""
    target = {"dbname": database} if database else {}
    return make_conninfo(
        host=node.host, port=node.port, user=user, connect_timeout=CONNECT_SECONDS, **ALIVE, **target
    )  # fmt: skip


def node_status(access: Access, node: Endpoint, *, superuser: bool = False) -> NodeStatus:
    """Ask a node for its status.

    Args:
        access: addresses and credentials.
        node: the node.
        superuser: connect as the superuser to its own database, because a restore may have closed the owner's.
    """
    connected = connect_long(access, node) if superuser else connect(access, node)
    with connected as connection, answered_within(connection):
        return NodeStatus(**_rows(connection, STANDING)[0])


def query(access: Access, node: Endpoint, text: str) -> list[dict[str, Any]]:
    """Run one query on a node, as the owner of the database. Returns rows by column."""
    with connect(access, node) as connection, answered_within(connection):
        return _rows(connection, text)


def connect(
    access: Access, node: Endpoint, *, application_name: str = PROBE
) -> psycopg.Connection[Any]:
    """Connect for short queries, as the owner of the database."""
    seconds = access.timeout_seconds
    limit = f"statement_timeout={round(seconds * 1000)}"
    return psycopg.connect(
        host=node.host,
        port=node.port,
        user=OWNER,
        password=access.secret(SECRET, "password"),
        dbname=DATABASE,
        connect_timeout=max(2, round(seconds)),
        options=options((*COMMON, *OWN, limit)),
        application_name=application_name,
        autocommit=True,
        cursor_factory=Cursor,
        tcp_user_timeout=round(seconds * 1000),
    )


def connect_long(
    access: Access, node: Endpoint, database: str = SUPERUSER, *settings: str
) -> psycopg.Connection[Any]:
    """Connect as the superuser for a backup: without a time limit, but a lost peer is noticed.

    Args:
        access: addresses and credentials.
        node: the node.
        database: name of the database.
        settings: additional settings of the session, `name=value`.
    """
    password = access.secret(SECRET, "postgres-password")
    return connect_superuser(node, database, password, f"lock_timeout={LOCK_TIMEOUT}", *settings)


def connect_superuser(
    node: Endpoint, database: str, password: str, *settings: str
) -> psycopg.Connection[Any]:
    """Connect as the superuser, with isa's limits and without tenants' names, views or triggers.

    Args:
        node: the node.
        database: name of the database.
        password: "" if the server does not ask for one.
        settings: additional settings of the session, `name=value`.
    """
    # names are read as UTF-8, even from a database without an encoding (SQL_ASCII)
    fixed = (*COMMON, *OWN, *OF_SUPERUSER, *ALIVE_SERVER, *settings)
    parameters = {
        "host": node.host, "port": node.port, "user": SUPERUSER, "dbname": database,
        "connect_timeout": CONNECT_SECONDS, "application_name": BACKUP, **ALIVE,
    }  # fmt: skip
    if password:
        parameters["password"] = password

    optional = [*OF_SUPERUSER_17, TABLES_ONLY]
    while True:
        try:
            return psycopg.connect(
                **parameters,
                options=options((*fixed, *optional)),
                autocommit=True,
                cursor_factory=Cursor,
            )
        except psycopg.OperationalError as exc:
            # an older server names the setting that it does not know
            unknown = [
                setting for setting in optional if f'"{setting.partition("=")[0]}"' in str(exc)
            ]
            if not unknown:
                raise
            optional = [setting for setting in optional if setting not in unknown]


@contextmanager
def answered_within(
    connection: psycopg.Connection[Any], seconds: float = QUESTION_SECONDS
) -> Iterator[None]:
    """Close a connection whose server does not answer.

    If a server's process hangs (a stuck disk, SIGSTOP), its machine still acknowledges packets. Then neither keep-alive
    nor the server's own limits end the wait.

    Args:
        connection: the connection that the block uses.
        seconds: time limit for the whole block.
    """

    def break_off() -> None:
        with (
            suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(connection.fileno())) as duplicate,
        ):
            duplicate.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, break_off)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def primary(access: Access) -> Endpoint:
    """The node that accepts writes. It is asked as the superuser, who is not affected by a fence.

    Raises:
        TemporaryError: no node or several nodes accept writes.
    """

    def standby(node: Endpoint) -> bool:
        with connect_long(access, node, MAINTENANCE) as connection, answered_within(connection):
            return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)

    members = access.settings.components.postgresql.members
    nodes = access.endpoints(STATEFULSET, members, PORT)
    answers = ask_members(nodes, standby)
    primaries = [node for node in nodes if answers.good.get(node.member) is False]
    if len(primaries) != 1:
        raise TemporaryError(
            f"PostgreSQL has {len(primaries)} reachable primaries: {words(answers.bad)}", delay=15
        )
    return primaries[0]


@contextmanager
def at_primary(
    access: Access, database: str = MAINTENANCE, *settings: str
) -> Iterator[psycopg.Connection[Any]]:
    """A long session of the superuser at the current primary.

    It can write even if the database is read-only for others. Its commits do not wait for standbys: the result is
    compared afterwards, and a commit that waits for a missing synchronous standby would wait forever.

    Args:
        access: addresses and credentials.
        database: name of the database.
        settings: additional settings of the session, `name=value`.

    Raises:
        PermanentError: PostgreSQL refuses something.
        TemporaryError: there is not exactly one primary, or it went away.
    """
    node = primary(access)
    with (
        explained(node.member),
        connect_long(access, node, database, *WRITES, *settings) as connection,
    ):
        yield connection


# ---------------------------------------------------------------------- inside
def _rows(connection: psycopg.Connection[Any], text: str) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(text.encode()).fetchall()
