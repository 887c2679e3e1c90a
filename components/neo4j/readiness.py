"""The gate of Neo4j. Each member is a release and a StatefulSet of its own; none is ready before all have joined.

Each member is asked directly over Bolt: `SHOW SERVERS` and `SHOW DATABASES`
(https://neo4j.com/docs/operations-manual/5/clustering/monitoring/show-servers-monitoring/). The probe writes a node on
the leader of the default database and reads it on another member with the bookmark, which waits for replication.

Tried on Community 5.26, which has one member and no `SHOW SERVERS`. For Enterprise only the documentation was read.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import neo4j
from neo4j.exceptions import DriverError, Neo4jError

from components.access import Access, Endpoint
from components.base import Report, Role, Workload
from components.neo4j.client import (
    DATABASE,
    LABEL,
    QUERY_TIMEOUTS,
    Rows,
    driver_of,
    members_of,
    query,
    unless_silent,
)
from components.questions import Answers, Round, ask_members, words
from config.models import Settings

DATABASES = """
    SHOW DATABASES YIELD name, address, role, writer, requestedStatus, currentStatus, statusMessage, replicationLag
"""
SERVERS = "SHOW SERVERS YIELD name, address, state, health"
TRANSACTION_TIMEOUTS = 3 * QUERY_TIMEOUTS  # for the three queries of the writer
# Deletes nodes of killed rounds. They are an hour old; running rounds keep theirs.
SWEEP = f"MATCH (old:{LABEL}) WHERE old.at < datetime() - duration('PT1H') DETACH DELETE old"
WRITE = f"CREATE (:{LABEL} {{token: $token, at: datetime()}})"
READ = f"MATCH (n:{LABEL} {{token: $token}}) RETURN count(n) AS found"
# https://neo4j.com/docs/status-codes/current/errors/all-errors/
READ_ONLY = frozenset(
    {
        "Neo.ClientError.General.ForbiddenOnReadOnlyDatabase",
        "Neo.ClientError.General.WriteOnReadOnlyAccessDatabase",
    }
)
REMOVE = f"MATCH (n:{LABEL} {{token: $token}}) DELETE n"


def workloads(settings: Settings) -> tuple[Workload, ...]:
    """The workloads of this component in Kubernetes."""
    members = settings.components.neo4j.members
    return tuple(
        Workload("StatefulSet", f"neo4j-{n}", 1, group="neo4j") for n in range(1, members + 1)
    )


def ask(access: Access) -> Report:
    """Check the members, the databases with their writers, and a node through two members."""
    config = access.settings.components.neo4j
    members = members_of(access)
    questions = Round()
    answers = ask_members(members, lambda member: query(access, member, DATABASES))
    questions.checks.append(answers.check("members answer"))
    if not answers.good:
        questions.note("databases have a writer", False, "no member answers")
        return Report(tuple(questions.checks))
    if config.edition == "enterprise":
        with questions.check("servers are enabled and available", critical=False) as answer:
            server_member = next(m for m in members if m.member in answers.good)
            servers = query(access, server_member, SERVERS)
            bad = {
                str(s["address"]): f"{s['state']}, {s['health']}"
                for s in servers
                if (s["state"], s["health"]) != ("Enabled", "Available")
            }
            if len(servers) < config.members:
                bad["the cluster"] = f"has {len(servers)} of {config.members} servers"
            answer.settle(not bad, words(bad) or f"{len(servers)} servers")
    leader = _databases(questions, answers)
    writer = next((m for m in members if m.member == leader), None)
    if writer is not None:
        others = [m for m in members if m.member in answers.good and m.member != leader]
        with questions.check("node written and read on another member") as answer:
            try:
                answer.settle(True, _transaction(access, writer, others[0] if others else writer))
            except Neo4jError as exc:
                if exc.code not in READ_ONLY:
                    raise
                answer.unknown(f"database {DATABASE} is read-only: {exc.message}")
    return Report(tuple(questions.checks), tuple(_roles(answers, leader)))


def _databases(questions: Round, answers: Answers[Rows]) -> str:
    """Check the databases. Returns the member that writes to the default database, or ""."""
    copies = [
        (member, row)
        for member, rows in answers.good.items()
        for row in rows
        if _own(member, row, answers)
    ]
    writers = {row["name"]: member for member, row in copies if row["writer"]}
    names = {row["name"] for _, row in copies if row["requestedStatus"] == "online"}
    without_writer = sorted(names - set(writers))
    hint = (
        f"{', '.join(without_writer)}: no member accepts writes, because a majority of its members is down"
        if without_writer
        else ", ".join(sorted(names))
    )
    questions.note("databases have a writer", not without_writer, hint)
    bad = {
        f"{row['name']} on {member}": f"{row['currentStatus']} {row['statusMessage'] or ''}".strip()
        for member, row in copies
        if row["currentStatus"] != row["requestedStatus"]
    }
    questions.note("databases are online", not bad, words(bad), critical=False)
    return str(writers.get(DATABASE, ""))


def _own(member: str, row: Mapping[str, Any], answers: Answers[Rows]) -> bool:
    """Whether a row describes the copy on the member that returned it. A member knows its own copy best."""
    if len(answers.good) + len(answers.bad) == 1:
        return True
    return str(row["address"]).startswith(f"{member.removesuffix('-0')}.")


def _roles(answers: Answers[Rows], leader: str) -> list[Role]:
    roles = []
    for member, rows in sorted(answers.good.items()):
        row = next((r for r in rows if r["name"] == DATABASE and _own(member, r, answers)), None)
        lag = f"{row['replicationLag']} tx" if row and member != leader else ""
        roles.append(Role(member, "leader" if member == leader else "follower", lag))
    return roles


def _transaction(access: Access, writer: Endpoint, reader: Endpoint) -> str:
    """Write a node, read it with the writer's bookmark, and delete it.

    Raises:
        Neo4jError, DriverError: a member fails.
        RuntimeError: the reader does not have the node.
    """
    token, limit = secrets.token_hex(8), access.timeout_seconds
    with (
        driver_of(access, writer) as driver,
        unless_silent(driver, writer, TRANSACTION_TIMEOUTS * limit),
        driver.session(database=DATABASE) as session,
    ):
        with suppress(Neo4jError):  # another round may delete the same nodes
            session.run(neo4j.Query(SWEEP, timeout=limit)).consume()
        session.run(neo4j.Query(WRITE, timeout=limit), token=token).consume()
        try:
            count = _read(access, reader, session.last_bookmarks(), token)
        finally:
            with suppress(Neo4jError, DriverError):  # garbage collection of a later round finds it
                session.run(neo4j.Query(REMOVE, timeout=limit), token=token).consume()
    if count != 1:
        raise RuntimeError(f"{reader.member} does not have the written node")
    return f"written on {writer.member}, read on {reader.member}"


def _read(access: Access, reader: Endpoint, bookmarks: neo4j.Bookmarks, token: str) -> int:
    with (
        driver_of(access, reader) as driver,
        unless_silent(driver, reader, QUERY_TIMEOUTS * access.timeout_seconds),
        driver.session(
            database=DATABASE, bookmarks=bookmarks, default_access_mode=neo4j.READ_ACCESS
        ) as session,
    ):
        query_text = neo4j.Query(READ, timeout=access.timeout_seconds)
        return int(session.run(query_text, token=token).single(strict=True)["found"])
