"""Backs up Enterprise: `neo4j-admin database backup` over port 6362, checked for consistency before it is stored.

The protocol is Neo4j's own, so the program is needed, in the servers' version and with Java. It writes to a directory
of the spool, which needs space for the largest database. Exit status 1 may mean success with problems; then the
artefact exists, and the check decides.

Written from the documentation; not tested with an Enterprise server:
https://neo4j.com/docs/operations-manual/5/backup-restore/online-backup/
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from archive.backup.writer import SetWriter
from archive.streams.spool import pieces
from cluster.command import Cancelled, Command
from components.access import Access
from components.neo4j.client import BACKUP_PORT, members_of
from components.programs import find_program
from errors import IsaError, PermanentError, TemporaryError

BACKUP_SECONDS = 6 * 3600.0


def back_up_databases(access: Access, writer: SetWriter, databases: list[str]) -> list[str]:
    """Store an online backup of each database.

    Args:
        access: addresses and settings.
        writer: the backup in progress.
        databases: names, including `system`.

    Returns:
        `database NAME: why` for each that could not be stored, if others could.

    Raises:
        TemporaryError: no database could be stored.
        PermanentError: neo4j-admin is missing, or every store is inconsistent.
    """
    program = _program(access)
    members = ",".join(m.url for m in members_of(access, BACKUP_PORT) if m.host)
    failed: dict[str, IsaError] = {}
    for database in databases:
        try:
            _store(program, members, database, writer)
        except Cancelled:
            raise
        except (TemporaryError, PermanentError) as exc:
            failed[database] = exc
    if failed and len(failed) == len(databases):
        raise next(iter(failed.values()))
    return [f"database {name}: {why}" for name, why in failed.items()]


def _store(program: Command, members: str, database: str, writer: SetWriter) -> None:
    with tempfile.TemporaryDirectory(dir=writer.spool, prefix="neo4j-") as directory:
        file = _take(program, members, database, Path(directory))
        _check(program, database, Path(directory))
        # keeps its own name: neo4j-admin reads the database and the chain from it
        size = file.stat().st_size
        with file.open("rb") as opened:
            writer.add(
                file.name,
                f"database {database}",
                "neo4j-admin database backup",
                pieces(opened),
                size,
            )


def version(access: Access) -> str:
    """The version of neo4j-admin."""
    return _program(access).run("--version", timeout=60).stdout.strip()


def _take(program: Command, members: str, database: str, target: Path) -> Path:
    scratch = target / "temp"
    scratch.mkdir()
    result = program.run(
        "database", "backup", f"--from={members}", f"--to-path={target}", f"--temp-path={scratch}",
        "--type=FULL", "--include-metadata=all", "--compress=true", database,
        timeout=BACKUP_SECONDS,
    )  # fmt: skip
    files = sorted(target.glob("*.backup"))
    if len(files) != 1:
        raise TemporaryError(
            f"neo4j-admin database backup {database} exited with {result.returncode}: {result.error}"
        )
    return files[0]


def _check(program: Command, database: str, target: Path) -> None:
    result = program.run(
        "database", "check", f"--from-path={target}", f"--temp-path={target / 'temp'}", database,
        timeout=BACKUP_SECONDS,
    )  # fmt: skip
    if result.returncode != 0:
        raise PermanentError(
            f"the backup of {database} is not consistent, so the source is not consistent either: {result.error}. Keep "
            "the last good backup, and check the store with `neo4j-admin database check`"
        )


def _program(access: Access) -> Command:
    return find_program(
        access,
        "neo4j-admin",
        "Install Neo4j Enterprise of the servers' version on the backup workers",
    )
