"""Restores Neo4j: loads databases into the volume of a stopped server, checks them there, and starts it.

Community's backups have dumps, Enterprise's have backups; `neo4j-admin` of the engine's own image reads both.

The database `system` is restored too, so the users are the source's. isa does not know their passwords, so the scratch
server requires none; network policies limit who can reach it. It has no plugins, because their triggers are in
`system`. Cypher cannot load from files or addresses (WebURLAccessRule in neo4j/neo4j).
https://neo4j.com/docs/operations-manual/5/backup-restore/
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from neo4j.exceptions import DriverError, Neo4jError

from archive.backup.encryption import SUFFIX
from archive.backup.manifest import Manifest, Measure
from archive.backup.reader import SetReader
from components.access import Access, Endpoint
from components.base import Restore, Scratch, Step
from components.neo4j.client import PORT, query
from components.neo4j.editions.offline import RELEASE
from components.neo4j.fingerprint import form_of, measure_database, measure_users
from config.models import Settings
from errors import TemporaryError

DUMP, BACKUP = "neo4j-admin database dump", "neo4j-admin database backup"
SYSTEM = "system"
FOLDER = "/scratch/sets"
SETTINGS = f"""
server.directories.data=/scratch/data
server.directories.logs=/scratch/logs
server.directories.run=/scratch/run
server.default_listen_address=0.0.0.0
server.bolt.listen_address=0.0.0.0:{PORT}
server.http.enabled=false
server.https.enabled=false
dbms.security.auth_enabled=false
dbms.usage_report.enabled=false
db.tx_log.preallocate=false
server.directories.plugins=/scratch/no-plugins
server.directories.import=/scratch/no-imports
dbms.security.allow_csv_import_from_file_urls=false
internal.dbms.cypher_ip_blocklist=0.0.0.0/0,::/0
"""
ADMIN = ("neo4j-admin", "database")


def scratch(settings: Settings, manifest: Manifest, _: str) -> tuple[Scratch, ...]:
    """One server with all databases."""
    steps: list[Step] = []
    placed = []
    for number, artefact in enumerate(a for a in manifest.artefacts if a.format in (DUMP, BACKUP)):
        name = artefact.name.removesuffix(SUFFIX)
        database = artefact.unit.partition(" ")[2]
        placed.append(name)
        arguments = (
            ("load", database, f"--from-path={FOLDER}", "--overwrite-destination=true")
            if artefact.format == DUMP
            else (
                "restore",
                f"--from-path={FOLDER}/{name}",
                "--overwrite-destination=true",
                database,
            )
        )
        steps.append(Step(f"load-{number}", (*ADMIN, *arguments), "L2"))
        if database != SYSTEM:
            check = (*ADMIN, "check", database, "--report-path=/scratch")
            steps.append(Step(f"check-{number}", check, "L2"))
    return (
        Scratch(
            "", RELEASE, "neo4j", ("neo4j", "console"), PORT,
            {"NEO4J_CONF": "/config", "NEO4J_ACCEPT_LICENSE_AGREEMENT": settings.licences.neo4j},
            files={"neo4j.conf": SETTINGS}, secrets={"neo4j-auth": {"NEO4J_AUTH": "neo4j/none"}},
            placed=tuple(placed), steps=tuple(steps),
        ),
    )  # fmt: skip


def place(reader: SetReader, name: str, directory: Path) -> None:
    """Write dumps and backups to the directory that neo4j-admin reads.

    Raises:
        Damaged: one differs from what was stored.
    """
    for form in (DUMP, BACKUP):
        for artefact in reader.names(form):
            reader.save(artefact, directory / "sets" / artefact)


def ask(access: Access, endpoint: Endpoint) -> str:
    """The server's version, once its databases are online."""
    rows = query(access, endpoint, "SHOW DATABASES YIELD name, currentStatus")
    waiting = [row["name"] for row in rows if row["currentStatus"] != "online"]
    if waiting:
        raise TemporaryError(f"{endpoint.member}: {', '.join(waiting)} is not online")
    about = query(access, endpoint, "CALL dbms.components() YIELD versions, edition")[0]
    return f"Neo4j {about['versions'][0]} {about['edition']}"


def load(access: Access, at: Mapping[str, Endpoint], reader: SetReader) -> None:
    """Nothing to load: `place` and the steps have done it."""


def measure(
    access: Access, at: Mapping[str, Endpoint], reader: SetReader
) -> Mapping[str, list[Measure]]:
    """Measure all databases of the server, and its users.

    Raises:
        TemporaryError: the server went away.
    """
    server = next(iter(at.values()))
    try:
        rows = query(access, server, "SHOW DATABASES YIELD name, type")
        names = sorted({str(r["name"]) for r in rows if r["type"] not in ("system", "composite")})
        measures = [measure_users(access, server)]
        for name in names:
            measures += measure_database(access, server, name, form_of(reader.manifest))
    except (Neo4jError, DriverError) as exc:
        failure = getattr(exc, "code", None) or type(exc).__name__
        raise TemporaryError(f"Neo4j: {failure}", said=str(exc)) from exc
    return {"": measures}


RESTORE = Restore(scratch, place, ask, load, measure, version=("neo4j-admin", "--version"))
