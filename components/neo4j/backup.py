"""Backs up Neo4j and its users: Enterprise while it runs (`online`), Community while it is stopped (`offline`)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from neo4j.exceptions import DriverError, Neo4jError

from archive.backup.manifest import Consistency, Engine, Measure
from archive.backup.writer import SetWriter
from components.access import Access, Endpoint
from components.base import BackupContent
from components.digest import settled
from components.neo4j.client import Rows, members_of, query, until_answered
from components.neo4j.editions import offline, online
from components.neo4j.fingerprint import NEWEST, VERSION, measure_database, measure_users
from errors import PermanentError, TemporaryError

SYSTEM = "system"
DATABASES = "SHOW DATABASES YIELD name, type, currentStatus, requestedStatus, statusMessage"
# States that end by themselves. In all others a database stays until a person acts.
# https://neo4j.com/docs/operations-manual/5/database-administration/standard-databases/listing-databases/
PASSING = frozenset({"initial", "starting", "stopping", "store copying", "draining"})
COMPONENTS = "CALL dbms.components() YIELD name, versions, edition"
NOT_COVERED = (
    "neo4j.conf, certificates and plugins (Helm values and Secrets: the backup of `platform`)",
    "transactions after the recovery point",
    "a common recovery point of several databases: each is consistent in itself",
)


def back_up(access: Access, writer: SetWriter) -> BackupContent:
    """Take one backup of all databases.

    Raises:
        PermanentError: Community, and the settings do not allow stopping it; or neo4j-admin is missing.
        TemporaryError: no member answers, or no database could be stored.
    """
    config = access.settings.components.neo4j
    community = config.edition == "community"
    if community and not access.settings.backup.neo4j.offline:
        raise PermanentError(
            "Neo4j Community cannot be backed up while it runs: set backup.neo4j.offline so that it may be stopped "
            "for a dump, or run Enterprise"
        )
    if community:
        offline.sweep(access, writer.cleanup)
    try:
        member, online_names, lacking = _member(access)
        databases = [name for name in online_names if name != SYSTEM]
        about = query(access, member, COMPONENTS)[0]
        writer.add_json("users.json", "users", _users(access, member, community))
        before = _measure(access, member, databases)
        begun = datetime.now(UTC)
        tools = {}
        if community:
            lacking += offline.dump(access, writer)
        else:
            lacking += online.back_up_databases(access, writer, [*databases, SYSTEM])
            tools = {"neo4j-admin": online.version(access)}
        ended = datetime.now(UTC)
        seconds = offline.start_seconds(sum(artefact.plain_size for artefact in writer.artefacts))
        fingerprint, unknown = settled_or_counted(
            before, lambda: _measure(access, _member(access)[0], databases), seconds
        )
    except (Neo4jError, DriverError) as exc:
        raise TemporaryError(f"Neo4j: {exc}", delay=15) from exc
    return BackupContent(
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
        fingerprint=tuple(fingerprint),
        tools=tools,
        not_covered=NOT_COVERED,
        missing=(*lacking, *([f"fingerprint: {unknown}"] if unknown else [])),
    )


def settled_or_counted(
    before: list[Measure], measure: Callable[[], list[Measure]], seconds: float
) -> tuple[list[Measure], str]:
    """The fingerprint of the stored databases.

    If the server does not answer after the backup, the backup is kept with counts only: another attempt would stop the
    server once more.

    Args:
        before: measures from before the backup.
        measure: measures after the backup.
        seconds: time limit for the server to answer, after the first attempt.

    Returns:
        The fingerprint, and why it has counts only ("" if it is complete).
    """
    try:
        return settled(before, until_answered(measure, seconds)), ""
    except TemporaryError as exc:
        counted = [
            measure.model_copy(update={"until": measure.count, "digest": "", "names": {}})
            for measure in before
        ]
        return (
            counted,
            f"everything is stored, but the counts are from before the backup: {exc}",
        )


def online_and_lacking(rows: Rows) -> tuple[list[str], list[str]]:
    """Names of the databases that are online, and `database NAME: why` for the others.

    Args:
        rows: rows of SHOW DATABASES; in a cluster a database has one for each member.

    Raises:
        TemporaryError: a database will be online soon.
    """
    copies_by_name: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["type"] != "composite":
            copies_by_name.setdefault(str(row["name"]), []).append(row)
    online_names, lacking = [], []
    for name, copies in copies_by_name.items():
        states = {str(row["currentStatus"]) for row in copies}
        if "online" in states:
            online_names.append(name)
        elif copies[0]["requestedStatus"] != "online":
            lacking.append(f"database {name} is stopped: START DATABASE, or drop it")
        elif states & PASSING:
            raise TemporaryError(
                f"Neo4j: {name} should be online and is {', '.join(sorted(states))}", delay=15
            )
        else:
            message = next(
                (str(row["statusMessage"]) for row in copies if row["statusMessage"]), ""
            )
            state = ", ".join(sorted(states))
            lacking.append(f"database {name}: it should be online but is {state} ({message})")
    return online_names, lacking


def _member(access: Access) -> tuple[Endpoint, list[str], list[str]]:
    """A member that answers, its online databases, and why others are not online."""
    causes = []
    for member in members_of(access):
        if not member.host:
            continue
        try:
            rows = query(access, member, DATABASES)
        except (Neo4jError, DriverError) as exc:
            causes.append(f"{member.member}: {exc}")
            continue
        return member, *online_and_lacking(rows)
    raise TemporaryError(
        f"no member of Neo4j answers: {'; '.join(causes) or 'none has started'}", delay=15
    )


def _measure(access: Access, member: Endpoint, databases: list[str]) -> list[Measure]:
    measures = [measure for name in databases for measure in measure_database(access, member, name)]
    return [measure_users(access, member), *measures]


def _users(access: Access, member: Endpoint, community: bool) -> dict[str, Rows]:
    """Users, roles and privileges. Passwords are in the database `system` only."""
    accounts = {"users": query(access, member, "SHOW USERS")}
    if not community:
        accounts["roles"] = query(access, member, "SHOW ROLES WITH USERS")
        accounts["privileges"] = query(access, member, "SHOW PRIVILEGES AS COMMANDS")
    return accounts
