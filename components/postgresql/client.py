"""How one node of PostgreSQL is asked: connections, and where it stands.

Always the nodes themselves: through Pgpool one cannot know which node answers, and snapshots are a node's own
(https://www.pgpool.net/docs/latest/en/html/backup.html).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from cluster.command import Command
from components.access import Access, Endpoint
from components.programs import find_program
from components.questions import PROBE, ask_members, words
from errors import PermanentError, TemporaryError

STATEFULSET = "postgresql-ha-postgresql"
PORT = 5432
OWNER = DATABASE = "isa"
SUPERUSER = "postgres"  # reads everything, replicates; only backups and restores need it
SECRET = "postgresql-ha-auth"
BACKUP = "isa-cloud-backup"  # name of a backup's sessions
MAINTENANCE = "template1"  # from where databases are renamed
SCHEMA = PROBE.replace("-", "_")  # backups leave this schema out

# Who has lost its peer notices after 10 + 3 × 5 s.
IDLE, INTERVAL, COUNT = 10, 5, 3  # seconds, seconds, probes

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
        host=node.host, port=node.port, user=SUPERUSER, connect_timeout=10,
        keepalives_idle=IDLE, keepalives_interval=INTERVAL, keepalives_count=COUNT, **given,
    )  # fmt: skip


def standing(access: Access, node: Endpoint, *, superuser: bool = False) -> Standing:
    """Ask a node where it stands.

    Args:
        access: the way in.
        node: which one.
        superuser: whether as the superuser in a database of its own, for when the owner's is closed by a restore.
    """
    with connect_long(access, node) if superuser else connect(access, node) as connection:
        return Standing(**_rows(connection, STANDING)[0])


def query(access: Access, node: Endpoint, text: str) -> list[dict[str, Any]]:
    """Put one query to a node, as the owner of the database; rows by column."""
    with connect(access, node) as connection:
        return _rows(connection, text)


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
        keepalives_idle=IDLE,
        keepalives_interval=INTERVAL,
        keepalives_count=COUNT,
    )


def primary(access: Access) -> Endpoint:
    """The node that takes writes; asked as the superuser, whom no fence keeps out.

    Raises:
        TemporaryError: none or several do.
    """

    def standby(node: Endpoint) -> bool:
        with connect_long(access, node, MAINTENANCE) as connection:
            return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)

    members = access.settings.components.postgresql.members
    nodes = access.endpoints(STATEFULSET, members, PORT)
    answers = ask_members(nodes, standby)
    found = [node for node in nodes if answers.good.get(node.member) is False]
    if len(found) != 1:
        raise TemporaryError(
            f"PostgreSQL has {len(found)} primaries within reach: {words(answers.bad)}", delay=15
        )
    return found[0]


@contextmanager
def at_primary(
    access: Access, database: str = MAINTENANCE, *options: LiteralString
) -> Iterator[psycopg.Connection[Any]]:
    """A long session of the superuser at the primary that there is now.

    Args:
        access: the way in.
        database: its name.
        options: further `name=value` of the session.

    Raises:
        PermanentError: PostgreSQL refuses what it is asked for.
        TemporaryError: there is no one primary, or it went away.
    """
    node = primary(access)
    with (
        explained(node.member),
        connect_long(access, node, database, *options) as connection,
    ):
        yield connection


# Classes of errors, and single ones, that another attempt may heal: connections, conflicts, resources, objects in use,
# an operator's intervention; a database or table that somebody dropped.
# https://www.postgresql.org/docs/18/errcodes-appendix.html
PASSING = ("08", "40", "53", "55", "57", "3D000", "42P01")


@contextmanager
def explained(who: str) -> Iterator[None]:
    """What the client raises, in the project's own terms: a class of error says no value of a row, its message may.

    Args:
        who: was asked.
    """
    try:
        yield
    except psycopg.Error as exc:
        lost = isinstance(exc, psycopg.OperationalError) and not exc.sqlstate
        passing = lost or (exc.sqlstate or "").startswith(PASSING)
        kind = TemporaryError if passing else PermanentError
        what = f"SQLSTATE {exc.sqlstate}" if exc.sqlstate else "the connection broke off"
        raise kind(f"PostgreSQL, {who}: {what}", said=str(exc)) from exc


# ---------------------------------------------------------------------- inside
def _rows(connection: psycopg.Connection[Any], text: str) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(text.encode()).fetchall()
