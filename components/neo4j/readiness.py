"""Neo4j: each member is a release and a StatefulSet of its own; none gets ready before all have met.

Members are asked over Bolt, each directly: `SHOW SERVERS` and `SHOW DATABASES`
(https://neo4j.com/docs/operations-manual/5/clustering/monitoring/show-servers-monitoring/). A node is written on the
leader of the default database and read on another member behind its bookmark, which waits for replication. Tried on
Community 5.26, which has one member and no `SHOW SERVERS`; of Enterprise only the documentation was read.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import neo4j

from components.access import Access, Endpoint
from components.base import Report, Role, Workload
from components.neo4j.client import DATABASE, LABEL, Rows, driver_of, members_of, query
from components.questions import Answers, Round, ask_members, words
from config.models import Settings

DATABASES = """
    SHOW DATABASES YIELD name, address, role, writer, requestedStatus, currentStatus, statusMessage, replicationLag
"""
SERVERS = "SHOW SERVERS YIELD name, address, state, health"
WRITE = f"""
    OPTIONAL MATCH (old:{LABEL}) WHERE old.at < datetime() - duration('PT1H')
    DETACH DELETE old
    WITH count(*) AS ignored
    CREATE (:{LABEL} {{token: $token, at: datetime()}})
"""
READ = f"MATCH (n:{LABEL} {{token: $token}}) RETURN count(n) AS found"
REMOVE = f"MATCH (n:{LABEL} {{token: $token}}) DELETE n"


def workloads(settings: Settings) -> tuple[Workload, ...]:
    """What must run for this component, as Kubernetes sees it."""
    members = settings.components.neo4j.members
    return tuple(
        Workload("StatefulSet", f"neo4j-{n}", 1, group="neo4j") for n in range(1, members + 1)
    )


def ask(access: Access) -> Report:
    """Ask for enabled members, databases online with a writer, and a node that travels."""
    wanted = access.settings.components.neo4j
    members = members_of(access)
    questions = Round()
    answers = ask_members(members, lambda member: query(access, member, DATABASES))
    questions.checks.append(answers.check("members answer"))
    if not answers.good:
        questions.note("databases have a writer", False, "no member answers")
        return Report(tuple(questions.checks))
    if wanted.edition == "enterprise":
        with questions.check("servers are enabled and available", critical=False) as answer:
            first = next(m for m in members if m.member in answers.good)
            servers = query(access, first, SERVERS)
            bad = {
                str(s["address"]): f"{s['state']}, {s['health']}"
                for s in servers
                if (s["state"], s["health"]) != ("Enabled", "Available")
            }
            if len(servers) < wanted.members:
                bad["the cluster"] = f"has {len(servers)} of {wanted.members} servers"
            answer.settle(not bad, words(bad) or f"{len(servers)} servers")
    leader = _databases(questions, answers)
    writer = next((m for m in members if m.member == leader), None)
    if writer is not None:
        others = [m for m in members if m.member in answers.good and m.member != leader]
        with questions.check("node written and read on another member") as answer:
            answer.settle(True, _transaction(access, writer, others[0] if others else writer))
    return Report(tuple(questions.checks), tuple(_roles(answers, leader)))


def _databases(questions: Round, answers: Answers[Rows]) -> str:
    """Check the databases; returns the member that writes the default one, or ""."""
    copies = [
        (member, row)
        for member, rows in answers.good.items()
        for row in rows
        if _own(member, row, answers)
    ]
    writers = {row["name"]: member for member, row in copies if row["writer"]}
    names = {row["name"] for _, row in copies if row["requestedStatus"] == "online"}
    lost = sorted(names - set(writers))
    hint = (
        f"{', '.join(lost)}: nobody may write, a majority of its members is away"
        if lost
        else ", ".join(sorted(names))
    )
    questions.note("databases have a writer", not lost, hint)
    bad = {
        f"{row['name']} on {member}": f"{row['currentStatus']} {row['statusMessage'] or ''}".strip()
        for member, row in copies
        if row["currentStatus"] != row["requestedStatus"]
    }
    questions.note("databases are online", not bad, words(bad), critical=False)
    return str(writers.get(DATABASE, ""))


def _own(member: str, row: Mapping[str, Any], answers: Answers[Rows]) -> bool:
    """Whether a row is about the member that said it: each sees the copies of all, its own best."""
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
    """Write a node, read it behind the writer's bookmark, delete it and what earlier rounds left."""
    token = secrets.token_hex(8)
    with driver_of(access, writer) as driver:
        with driver.session(database=DATABASE) as session:
            session.run(neo4j.Query(WRITE, timeout=access.timeout_seconds), token=token).consume()
            bookmarks = session.last_bookmarks()
        with (
            driver_of(access, reader) as other,
            other.session(
                database=DATABASE, bookmarks=bookmarks, default_access_mode=neo4j.READ_ACCESS
            ) as session,
        ):
            read = neo4j.Query(READ, timeout=access.timeout_seconds)
            found = session.run(read, token=token).single(strict=True)["found"]
        with driver.session(database=DATABASE) as session:
            session.run(REMOVE, token=token).consume()
    if found != 1:
        raise RuntimeError(f"{reader.member} has not what was written")
    return f"written on {writer.member}, read on {reader.member}"
