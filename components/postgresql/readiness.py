"""The gate of PostgreSQL HA: three nodes under repmgr, and two Pgpool proxies in front.

The gate asks every node itself, as the owner of the database, who has `pg_monitor`: roles by `pg_is_in_recovery()`,
standbys by the primary's `pg_stat_replication`
(https://www.postgresql.org/docs/17/monitoring-stats.html#MONITORING-PG-STAT-REPLICATION-VIEW), and a row written to the
primary and read from every standby. Each Pgpool is asked for its view of the nodes, and a row is written through it,
as clients write. Who manages failover does not matter to these questions. Tried on PostgreSQL 17 under repmgr behind
Pgpool 4.6, and on PostgreSQL 18 under Patroni.
"""

from __future__ import annotations

import secrets
import threading
import time
from contextlib import suppress
from typing import Any

import psycopg

from cluster.polling import polling
from components.access import Access, Endpoint
from components.base import Report, Role, Workload
from components.postgresql.client import (
    OWNER,
    PORT,
    SCHEMA,
    STATEFULSET,
    SUPERUSER,
    NodeStatus,
    connect,
    node_status,
    query,
)
from components.postgresql.connection.proxies import ask_pools, say_where_pools_write
from components.postgresql.wal.slots import SLOT
from components.questions import Answers, Round, ask_members, words
from config.models import Settings
from errors import PermanentError

PGPOOL_REPLICAS = 2  # clients keep their entry point while one of them is drained
PGPOOL = "postgresql-ha-pgpool"
SLOT_LIMIT_BYTES = 1 << 30  # an unused slot fills the primary's disk; the values drop one at 20 GB

REPLICATION = """
    SELECT application_name AS name, host(client_addr) AS address, state, sync_state,
           pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint AS lag
    FROM pg_stat_replication
"""
SLOTS = """
    SELECT slot_name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint AS held
    FROM pg_replication_slots WHERE NOT active AND restart_lsn IS NOT NULL
"""
# Everyone with CREATE on the database can take the name of the gate's schema, and their trigger would run as the gate.
NOT_OURS = f"""
    SELECT 'schema {SCHEMA}', pg_get_userbyid(nspowner) FROM pg_namespace
    WHERE nspname = '{SCHEMA}' AND pg_get_userbyid(nspowner) <> current_user
    UNION ALL
    SELECT 'table {SCHEMA}.probe', pg_get_userbyid(relowner)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = '{SCHEMA}' AND relname = 'probe' AND pg_get_userbyid(relowner) <> current_user
"""
# The gate's own setup and cleanup need no acknowledgement by a standby.
LOCAL = "SET synchronous_commit = local"
WAITS = """
    SELECT current_setting('synchronous_standby_names') FROM pg_stat_activity
    WHERE pid = %s AND wait_event = 'SyncRep'
"""

PENDING = "SELECT name FROM pg_settings WHERE pending_restart ORDER BY name"


def workloads(settings: Settings) -> tuple[Workload, ...]:
    """The workloads of this component in Kubernetes."""
    return (
        Workload("StatefulSet", STATEFULSET, settings.components.postgresql.members),
        Workload("Deployment", PGPOOL, PGPOOL_REPLICAS),
    )


def ask(access: Access) -> Report:
    """Ask for one primary, streaming standbys within the lag limit, a row that travels, proxies that write."""
    config = access.settings.components.postgresql
    nodes = {e.member: e for e in access.endpoints(STATEFULSET, config.members, PORT)}
    questions = Round()
    answers = ask_members(nodes.values(), lambda node: node_status(access, node))
    questions.checks.append(answers.check("nodes answer"))
    primary = _one_primary(questions, answers)
    roles = {m: Role(m, "standby" if s.standby else "primary") for m, s in answers.good.items()}
    if primary is None:
        if config.pgpool and sum(not one.standby for one in answers.good.values()) > 1:
            say_where_pools_write(access, questions)
        return Report(tuple(questions.checks), tuple(roles.values()))
    lags: dict[str, int] = {}
    with questions.check("standbys stream", critical=False) as answer:
        standbys = query(access, nodes[primary], REPLICATION)
        if any(s["state"] is None for s in standbys):
            raise PermanentError(
                f"user {OWNER} cannot read replication status: GRANT pg_monitor TO {OWNER}"
            )
        by_address = {node.pod_ip: name for name, node in nodes.items()}
        for standby in (s for s in standbys if s["state"] == "streaming"):
            # repmgr and Patroni both announce the node by its name
            name = (
                standby["name"] if standby["name"] in nodes else by_address.get(standby["address"])
            )
            if name is not None:  # otherwise a backup, or the receiver of another program
                lags[name] = int(standby["lag"] or 0)
        roles |= {m: Role(m, "standby", f"{lag} B") for m, lag in lags.items() if m in roles}
        missing = sorted(set(nodes) - set(lags) - {primary})
        answer.settle(not missing, _streaming(lags, missing))
        # a paused standby has the WAL, and replays it when the backup ends (components.postgresql.base_backup.replay)
        paused = {m: s.paused for m, s in answers.good.items() if s.paused}
        behind = {
            m: f"{lag} B"
            for m, lag in lags.items()
            if lag > config.max_lag_bytes and m not in paused
        }
        limit = f"limit {config.max_lag_bytes} B"
        questions.note(
            "lag within the limit",
            not behind,
            f"{words(behind)} behind ({limit}): a slow disk or network, or a long query on it"
            if behind
            else f"at most {max(lags.values(), default=0)} B, {limit}",
            critical=False,
        )
    by_hand = sorted(m for m, s in answers.good.items() if s.paused == "hand")
    backups = sorted(m for m, s in answers.good.items() if s.paused and m not in by_hand)
    questions.note("replay goes on", not by_hand, _held(by_hand, backups), critical=False)
    streamed = access.settings.wal.postgresql.enabled  # the doctor judges how much that slot holds
    with questions.check("no slot holds back WAL", critical=False) as answer:
        slots = {s["slot_name"]: int(s["held"]) for s in query(access, nodes[primary], SLOTS)}
        large = {
            name: f"{size >> 20} MiB"
            for name, size in slots.items()
            if size > SLOT_LIMIT_BYTES and not (name == SLOT and streamed)
        }
        hint = f"{words(large)}, not in use: drop it or bring its standby back" if large else ""
        answer.settle(not large, hint)
    _pending(access, questions, [nodes[name] for name in sorted(answers.good)])
    replaying = [
        nodes[name]
        for name in sorted(lags)
        if name in answers.good and not answers.good[name].paused
    ]
    _transaction(access, questions, nodes[primary], replaying)
    if config.pgpool:
        ask_pools(access, questions, primary)
    return Report(tuple(questions.checks), tuple(roles[name] for name in sorted(roles)))


def _pending(access: Access, questions: Round, nodes: list[Endpoint]) -> None:
    """Name settings that need a restart. No gate waits for it: people decide when to restart.

    They were changed in the server (ALTER SYSTEM). Settings that a deploy changes are followed by its own restart.
    """

    def names(node: Endpoint) -> str:
        return ", ".join(str(row["name"]) for row in query(access, node, PENDING))

    with questions.check("settings are in force", critical=False) as answer:
        waiting = {name: text for name, text in ask_members(nodes, names).good.items() if text}
        answer.settle(
            True, f"changed, but a restart is needed: {words(waiting)}" if waiting else ""
        )


def _one_primary(questions: Round, answers: Answers[NodeStatus]) -> str | None:
    primaries = sorted(name for name, s in answers.good.items() if not s.standby)
    systems = {s.system for s in answers.good.values()}
    if len(primaries) > 1:
        lines = ", ".join(f"{p} (timeline {answers.good[p].timeline})" for p in primaries)
        hint = (
            f"split brain: {lines} all accept writes. Stop the clients, keep the node on the highest timeline, save "
            "what only the others have, and let them clone it again"
        )
        questions.note("one primary", False, hint)
        return None
    if not primaries:
        hint = "no node accepts writes: a promotion is in progress, or the failover manager has no majority"
        questions.note("one primary", False, hint)
        return None
    if len(systems) > 1:
        questions.note(
            "one primary",
            False,
            "the nodes belong to different database clusters: one of them was initialised separately",
        )
        return None
    node_status = answers.good[primaries[0]]
    hint = f"{primaries[0]}, timeline {node_status.timeline}, PostgreSQL {node_status.version}"
    questions.note("one primary", True, hint)
    return primaries[0]


def _held(by_hand: list[str], backups: list[str]) -> str:
    if by_hand:
        return f"{', '.join(by_hand)}: replay was paused by hand: SELECT pg_wal_replay_resume()"
    return f"{', '.join(backups)} paused by a backup" if backups else ""


def _streaming(lags: dict[str, int], missing: list[str]) -> str:
    if not missing:
        return ", ".join(sorted(lags))
    return (
        f"{', '.join(missing)}: not streaming from the primary; if the primary is lost now, more than the lag may "
        "be lost"
    )


def _transaction(
    access: Access, questions: Round, primary: Endpoint, standbys: list[Endpoint]
) -> None:
    """Write a row, read it on every standby, remove it and rows of earlier rounds.

    Each round has its own row. Only the commit of that row waits for synchronous standbys, as a client's commit does.
    """
    token, foreign_owner = secrets.token_hex(8), ""
    with questions.check("write") as answer, connect(access, primary) as connection:
        connection.execute(LOCAL)
        foreign_owner = _make_table(connection)
        if foreign_owner:
            answer.unknown(foreign_owner)
        else:
            connection.execute(f"DELETE FROM {SCHEMA}.probe WHERE at < now() - interval '1 hour'")
            connection.execute("RESET synchronous_commit")
            trouble = _insert(access, primary, connection, token)
            answer.settle(not trouble, trouble or f"to {primary.member}")
    if foreign_owner:
        return
    if questions.checks[-1].ok:
        _read_back(access, questions, standbys, token)
    with (
        questions.check("clean up", critical=False) as answer,
        connect(access, primary) as connection,
    ):
        connection.execute(LOCAL)
        connection.execute(f"DELETE FROM {SCHEMA}.probe WHERE token = %s", [token])
        answer.settle(True)


def _make_table(connection: psycopg.Connection[Any]) -> str:
    """Create the probe's schema and table if they do not exist. Another round may create them at the same time.

    IF NOT EXISTS does not see the uncommitted objects of another transaction. Then the catalog's index raises an error,
    at most once for the schema and once for the table.

    Returns:
        Why the gate must not write there, if another role owns the schema or table; "" otherwise. No other role can
        create objects in the gate's own schema, so the answer stays true.
    """
    for final_attempt in (False, False, True):
        try:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            foreign_owner = _taken(connection)
            if foreign_owner:
                return foreign_owner
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {SCHEMA}.probe "
                "(token text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())"
            )
        except (
            psycopg.errors.UniqueViolation,
            psycopg.errors.DuplicateTable,
            psycopg.errors.DuplicateSchema,
            psycopg.errors.DuplicateObject,
        ):
            if final_attempt:
                raise
        else:
            break
    return _taken(connection)


def _taken(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute(NOT_OURS).fetchone()
    if row is None:
        return ""
    return (
        f"{row[0]} belongs to {row[1]} and not to {OWNER}, so the gate does not write to it: DROP SCHEMA {SCHEMA} "
        f"CASCADE as {SUPERUSER} (it holds no data of the platform)"
    )


def _insert(
    access: Access, primary: Endpoint, connection: psycopg.Connection[Any], token: str
) -> str:
    """Write the row. Returns why its commit was not acknowledged; "" if it was.

    No time limit of the server ends a commit that waits for a synchronous standby. A cancel ends it, and the row is
    committed then (`SyncRepWaitForLSN` in src/backend/replication/syncrep.c).
    """
    seconds, reasons = access.timeout_seconds, list[str]()

    def give_up() -> None:
        reasons.append(f"a commit took longer than {seconds:.0f} s")
        with suppress(psycopg.Error), connect(access, primary) as second:
            row = second.execute(WAITS, [connection.info.backend_pid]).fetchone()
            if row is not None:
                reasons[:] = [
                    f"writes wait for a synchronous standby ({row[0]}): bring one of them back, or remove them from "
                    "synchronous_standby_names"
                ]
        with suppress(psycopg.Error):
            connection.cancel_safe(timeout=seconds)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        connection.execute(f"INSERT INTO {SCHEMA}.probe (token) VALUES (%s)", [token])
    finally:
        timer.cancel()
    if reasons:
        timer.join(2 * seconds)  # it may still be reading the reason
    return next(iter(reasons), "")


def _read_back(access: Access, questions: Round, standbys: list[Endpoint], token: str) -> None:
    with questions.check("read back on every standby", critical=False) as answer:
        arrivals = ask_members(standbys, lambda node: _await_token(access, node, token))
        late = arrivals.bad | {
            m: "the row has not arrived" for m, arrived in arrivals.good.items() if not arrived
        }
        answer.settle(
            bool(standbys) and not late, words(late) or "there is no standby to read from"
        )
        if answer.ok:
            answer.hint = f"{len(standbys)} of {len(standbys)}"


def _await_token(access: Access, node: Endpoint, token: str) -> bool:
    with connect(access, node) as connection:
        for _ in polling(access.timeout_seconds, pause=0.02, sleep=time.sleep):
            try:
                statement = f"SELECT 1 FROM {SCHEMA}.probe WHERE token = %s"
                if connection.execute(statement, [token]).fetchone():
                    return True
            except (
                psycopg.errors.UndefinedTable
            ):  # in the first round the table has to be replicated too
                pass
    return False
