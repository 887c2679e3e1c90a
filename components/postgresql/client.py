"""How one node of PostgreSQL is asked: connections, and where it stands.

Always the nodes themselves: through Pgpool one cannot know which node answers, and snapshots are a node's own
(https://www.pgpool.net/docs/latest/en/html/backup.html).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from cluster.command import Command
from components.access import Access, Endpoint
from components.programs import find_program
from components.questions import PROBE

STATEFULSET = "postgresql-ha-postgresql"
PORT = 5432
OWNER = DATABASE = "isa"
SUPERUSER = "postgres"  # reads everything, replicates; only backups and restores need it
SECRET = "postgresql-ha-auth"
BACKUP = "isa-cloud-backup"  # name of a backup's sessions
SCHEMA = PROBE.replace("-", "_")  # backups leave this schema out

STANDING = f"""
    SELECT pg_is_in_recovery() AS standby, system_identifier::text AS system,
           timeline_id AS timeline, current_setting('server_version') AS version,
           CASE WHEN pg_is_in_recovery() THEN
               CASE WHEN NOT pg_is_wal_replay_paused() THEN ''
                    WHEN EXISTS (SELECT FROM pg_stat_activity WHERE application_name = '{BACKUP}')
                    THEN 'a backup' ELSE 'hand' END
           ELSE '' END AS paused
    FROM pg_control_system(), pg_control_checkpoint()
"""


@dataclass(frozen=True)
class Standing:
    """What a node says of itself.

    Attributes:
        standby: whether it replays another node's WAL.
        system: identifier of the database cluster; nodes with different ones are strangers.
        timeline: grows with every promotion.
        version: of the server.
        paused: by whom its replay is held, `a backup` or `hand`; "" if it goes on.
    """

    standby: bool
    system: str
    timeline: int
    version: str
    paused: str = ""


def program(access: Access, name: str, password: str) -> Command:
    """A client program with a password in its environment, where only its own user can read it.

    Raises:
        PermanentError: it is not installed.
    """
    environ = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PG")},
        "PGPASSWORD": password,
        "PGAPPNAME": BACKUP,
        # a database may be read-only by a setting of its own, and a restore sets that before the data
        "PGOPTIONS": "-c default_transaction_read_only=off",
    }
    hint = "Install PostgreSQL's client programs of the server's major version or newer"
    return find_program(access, name, hint, environ)


def where(node: Endpoint, database: str = "") -> str:
    """Connection string of a node for the superuser's programs; without password."""
    given = {"dbname": database} if database else {}
    return make_conninfo(
        host=node.host, port=node.port, user=SUPERUSER, connect_timeout=10, **given
    )


def standing(access: Access, node: Endpoint) -> Standing:
    """Ask a node where it stands."""
    return Standing(**query(access, node, STANDING)[0])


def query(access: Access, node: Endpoint, text: str) -> list[dict[str, Any]]:
    """Put one query to a node, as the owner of the database; rows by column."""
    with connect(access, node) as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(text.encode()).fetchall()


def connect(access: Access, node: Endpoint) -> psycopg.Connection[Any]:
    """Connect for a short question."""
    seconds = access.timeout_seconds
    return psycopg.connect(
        host=node.host,
        port=node.port,
        user=OWNER,
        password=access.secret(SECRET, "password"),
        dbname=DATABASE,
        connect_timeout=max(2, round(seconds)),
        options=f"-c statement_timeout={round(seconds * 1000)}",
        application_name=PROBE,
        autocommit=True,
    )


def connect_long(
    access: Access, node: Endpoint, database: str = SUPERUSER, *options: LiteralString
) -> psycopg.Connection[Any]:
    """Connect as the superuser for a backup: no limit of time, but a peer that is gone is noticed.

    Args:
        access: the way in.
        node: which one.
        database: its name.
        options: further `name=value` of the session.
    """
    # the server gives a session up 25 s after its client's machine was lost
    given = (
        "statement_timeout=0", "idle_in_transaction_session_timeout=0", "lock_timeout=60s",
        "tcp_keepalives_idle=10", "tcp_keepalives_interval=5", "tcp_keepalives_count=3", *options,
    )  # fmt: skip
    return psycopg.connect(
        host=node.host,
        port=node.port,
        user=SUPERUSER,
        password=access.secret(SECRET, "postgres-password"),
        dbname=database,
        connect_timeout=10,
        options=" ".join(f"-c {option}" for option in given),
        application_name=BACKUP,
        autocommit=True,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
    )
