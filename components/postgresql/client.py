"""How one node of PostgreSQL is asked: connections, and where it stands.

Always the nodes themselves: through Pgpool one cannot know which node answers, and snapshots are a node's own
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
from components.postgresql.failures import explained
from components.postgresql.session import (
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
SUPERUSER = "postgres"  # reads everything, replicates; only backups and restores need it
SECRET = "postgresql-ha-auth"
BACKUP = "isa-cloud-backup"  # name of a backup's sessions
MAINTENANCE = "template1"  # from where databases are renamed
SCHEMA = PROBE.replace("-", "_")  # backups leave this schema out

CONNECT_SECONDS = 10
LOCK_TIMEOUT = "60s"  # that a backup or a restore waits for a table
QUESTION_SECONDS = (
    20.0  # of a server that accepts a connection: what is asked so takes milliseconds
)
# A client that has lost its server notices after 10 + 3 × 5 s, or 25 s after it sent something unacknowledged
# (tcp_user_timeout, milliseconds); so does a server that has lost its client.
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
    """What a node says of itself.

    Attributes:
        standby: whether it replays another node's WAL.
        system: identifier of the database cluster; nodes with different ones are strangers.
        timeline: grows with every promotion.
        version: of the server, in words.
        number: its version as a number, `180006`.
        paused: by whom its replay is held, `a backup` or `hand`; "" if it goes on.
    """

    standby: bool
    system: str
    timeline: int
    version: str
    number: int = 0
    paused: str = ""


class Cursor(psycopg.Cursor[Any]):
    """A cursor whose statements are calls of this process."""

    def execute(self, query: Any, *args: Any, **more: Any) -> Any:
        """As `psycopg.Cursor.execute`."""
        text = query if isinstance(query, (str, bytes)) else query.as_bytes(self)
        info = self.connection.info
        with call(f"PostgreSQL {info.host}:{info.port}/{info.dbname}: {first_words(text)}"):
            return super().execute(query, *args, **more)


def program(access: Access, name: str, password: str, server_version: int = 0) -> Command:
    """A client program with a password in its environment, where only its own user can read it.

    Args:
        access: knows where programs are.
        name: of the program.
        password: of the role that it logs in as.
        server_version: number of the server that it will talk to as a superuser, `180006`; 0 as another role.

    Raises:
        PermanentError: it is not installed.
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
    """Connection string of a node for client programs; without password."""
    given = {"dbname": database} if database else {}
    return make_conninfo(
        host=node.host, port=node.port, user=user, connect_timeout=CONNECT_SECONDS, **ALIVE, **given
    )  # fmt: skip


def node_status(access: Access, node: Endpoint, *, superuser: bool = False) -> NodeStatus:
    """Ask a node where it stands.

    Args:
        access: the way in.
        node: which one.
        superuser: whether as the superuser in a database of its own, for when the owner's is closed by a restore.
    """
    connected = connect_long(access, node) if superuser else connect(access, node)
    with connected as connection, answered_within(connection):
        return NodeStatus(**_rows(connection, STANDING)[0])


def query(access: Access, node: Endpoint, text: str) -> list[dict[str, Any]]:
    """Put one query to a node, as the owner of the database; rows by column."""
    with connect(access, node) as connection, answered_within(connection):
        return _rows(connection, text)


def connect(
    access: Access, node: Endpoint, *, application_name: str = PROBE
) -> psycopg.Connection[Any]:
    """Connect for a short question, as the owner of the database."""
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
    """Connect as the superuser for a backup: no limit of time, but a peer that is gone is noticed.

    Args:
        access: the way in.
        node: which one.
        database: its name.
        settings: further ones of the session, `name=value` each.
    """
    password = access.secret(SECRET, "postgres-password")
    return connect_superuser(node, database, password, f"lock_timeout={LOCK_TIMEOUT}", *settings)


def connect_superuser(
    node: Endpoint, database: str, password: str, *settings: str
) -> psycopg.Connection[Any]:
    """Connect as the superuser, with isa's limits and without tenants' names, views or triggers.

    Args:
        node: which one.
        database: its name.
        password: "" where none is asked for.
        settings: further ones of the session, `name=value` each.
    """
    # names are read as UTF-8, also from a database of bytes (SQL_ASCII)
    given = (*COMMON, *OWN, *OF_SUPERUSER, *ALIVE_SERVER, *settings)
    parameters = {
        "host": node.host, "port": node.port, "user": SUPERUSER, "dbname": database,
        "connect_timeout": CONNECT_SECONDS, "application_name": BACKUP, **ALIVE,
    }  # fmt: skip
    if password:
        parameters["password"] = password

    known = [*OF_SUPERUSER_17, TABLES_ONLY]
    while True:
        try:
            return psycopg.connect(
                **parameters,
                options=options((*given, *known)),
                autocommit=True,
                cursor_factory=Cursor,
            )
        except psycopg.OperationalError as exc:
            # an older server does not know the name, and says which
            unknown = [one for one in known if f'"{one.partition("=")[0]}"' in str(exc)]
            if not unknown:
                raise
            known = [one for one in known if one not in unknown]


@contextmanager
def answered_within(
    connection: psycopg.Connection[Any], seconds: float = QUESTION_SECONDS
) -> Iterator[None]:
    """Break a connection off whose server says nothing.

    Where a server's process stands still (a disk that hangs, SIGSTOP), its machine still confirms what it is sent, so
    that neither keep-alive nor the server's own limits end the wait.

    Args:
        connection: that is asked in the block.
        seconds: for all that is asked.
    """

    def break_off() -> None:
        with (
            suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(connection.fileno())) as held,
        ):
            held.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, break_off)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def primary(access: Access) -> Endpoint:
    """The node that takes writes; asked as the superuser, whom no fence keeps out.

    Raises:
        TemporaryError: none or several do.
    """

    def standby(node: Endpoint) -> bool:
        with connect_long(access, node, MAINTENANCE) as connection, answered_within(connection):
            return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)

    members = access.settings.components.postgresql.members
    nodes = access.endpoints(STATEFULSET, members, PORT)
    answers = ask_members(nodes, standby)
    found = [node for node in nodes if answers.good.get(node.member) is False]
    if len(found) != 1:
        raise TemporaryError(
            f"PostgreSQL has {len(found)} reachable primaries: {words(answers.bad)}", delay=15
        )
    return found[0]


@contextmanager
def at_primary(
    access: Access, database: str = MAINTENANCE, *settings: str
) -> Iterator[psycopg.Connection[Any]]:
    """A long session of the superuser at the primary that there is now.

    It writes where the database is read-only for others, and its commits wait for no standby: what it makes is
    compared afterwards, and one that waits for a synchronous standby that is away waits forever.

    Args:
        access: the way in.
        database: its name.
        settings: further ones of the session, `name=value` each.

    Raises:
        PermanentError: PostgreSQL refuses what it is asked for.
        TemporaryError: there is no one primary, or it went away.
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
