"""Backs Neo4j up: Enterprise while it runs (`online`), Community while it is stopped (`offline`); and its users."""

from __future__ import annotations

from datetime import UTC, datetime

from neo4j.exceptions import DriverError, Neo4jError

from archive.manifest import Consistency, Engine, Measure
from archive.writer import SetWriter
from components.access import Access, Endpoint
from components.base import Taken
from components.digest import settled
from components.neo4j import offline, online
from components.neo4j.client import Rows, members_of, query
from components.neo4j.fingerprint import NEWEST, VERSION, measure_database, measure_users
from errors import PermanentError, TemporaryError

SYSTEM = "system"
DATABASES = "SHOW DATABASES YIELD name, type, currentStatus, requestedStatus"
COMPONENTS = "CALL dbms.components() YIELD name, versions, edition"
NOT_COVERED = (
    "neo4j.conf, certificates and plugins (Helm values and Secrets: set `platform`)",
    "transactions after the recovery point",
    "a common moment of several databases: each is consistent in itself",
)


def back_up(access: Access, writer: SetWriter) -> Taken:
    """Take one set of all databases.

    Raises:
        PermanentError: Community, and the settings do not allow to stop it; neo4j-admin is missing.
        TemporaryError: no member answers, or the backup broke off.
    """
    wanted = access.settings.components.neo4j
    community = wanted.edition == "community"
    if community and not access.settings.backup.neo4j.offline:
        raise PermanentError(
            "Neo4j Community has no backup while it runs: set backup.neo4j.offline to let it be stopped for "
            "the time of a dump, or run Enterprise"
        )
    if community:
        offline.sweep(access, writer.leftovers)
    try:
        member, online_ones, stopped = _member(access)
        databases = [name for name in online_ones if name != SYSTEM]
        about = query(access, member, COMPONENTS)[0]
        writer.add_json("users.json", "users", _users(access, member, community))
        before = _measure(access, member, databases)
        begun = datetime.now(UTC)
        tools = {}
        if community:
            offline.dump(access, writer)
            member, *_ = _member(access)
        else:
            online.back_up_databases(access, writer, [*databases, SYSTEM])
            tools = {"neo4j-admin": online.version(access)}
        ended = datetime.now(UTC)
        after = _measure(access, member, databases)
    except (Neo4jError, DriverError) as exc:
        raise TemporaryError(f"Neo4j: {exc}", delay=15) from exc
    return Taken(
        engine=Engine(
            name="Neo4j", version=str(about["versions"][0]), edition=str(about["edition"])
        ),
        topology={
            "members": [m.member for m in members_of(access) if m.host],
            "databases": databases,
            "way": "offline dump" if community else "online backup",
            VERSION: NEWEST.version,
        },
        consistency=tuple(
            Consistency(
                unit=f"database {name}",
                point="stopped" if community else "the last transaction of the backup",
                begun=begun,
                ended=ended,
            )
            for name in (*databases, SYSTEM)
        ),
        fingerprint=tuple(settled(before, after)),
        tools=tools,
        not_covered=NOT_COVERED,
        missing=tuple(
            f"database {name}: it is stopped, and only one that is online can be backed up: START DATABASE, or drop it"
            for name in stopped
        ),
    )


def online_and_stopped(rows: Rows) -> tuple[list[str], list[str]]:
    """Names of the databases that can be backed up, and of those that somebody has stopped.

    Args:
        rows: of SHOW DATABASES; a database of a cluster has one for each member.

    Raises:
        TemporaryError: one should be online and is not.
    """
    there = {str(row["name"]): row for row in rows if row["type"] != "composite"}
    offline_ones = [name for name, row in there.items() if row["currentStatus"] != "online"]
    bad = [name for name in offline_ones if there[name]["requestedStatus"] == "online"]
    if bad:
        raise TemporaryError(f"Neo4j: {', '.join(bad)} should be online and is not", delay=15)
    return [name for name in there if name not in offline_ones], offline_ones


def _member(access: Access) -> tuple[Endpoint, list[str], list[str]]:
    """A member that answers, with its databases: those that are online, and those that are stopped."""
    causes = []
    for member in members_of(access):
        if not member.host:
            continue
        try:
            rows = query(access, member, DATABASES)
        except (Neo4jError, DriverError) as exc:
            causes.append(f"{member.member}: {exc}")
            continue
        return member, *online_and_stopped(rows)
    raise TemporaryError(
        f"no member of Neo4j answers: {'; '.join(causes) or 'none has started'}", delay=15
    )


def _measure(access: Access, member: Endpoint, databases: list[str]) -> list[Measure]:
    found = [measure for name in databases for measure in measure_database(access, member, name)]
    return [measure_users(access, member), *found]


def _users(access: Access, member: Endpoint, community: bool) -> dict[str, Rows]:
    """Who there is and what they may; passwords are in the database `system` only."""
    found = {"users": query(access, member, "SHOW USERS")}
    if not community:
        found["roles"] = query(access, member, "SHOW ROLES WITH USERS")
        found["privileges"] = query(access, member, "SHOW PRIVILEGES AS COMMANDS")
    return found
