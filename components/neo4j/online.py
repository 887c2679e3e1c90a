"""Enterprise's way: `neo4j-admin database backup` over port 6362, checked for consistency before it is stored.

The protocol is Neo4j's own, so the program is needed, of the servers' version, with Java. It writes to a directory of
the spool, which must hold the largest database. Exit status 1 can mean that it succeeded with problems; then the
artefact is there, and the check decides. Only the documentation was read, no Enterprise server was at hand:
https://neo4j.com/docs/operations-manual/5/backup-restore/online-backup/
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from archive.spool import pieces
from archive.writer import SetWriter
from cluster.command import Cancelled, Command
from components.access import Access
from components.neo4j.client import BACKUP_PORT, members_of
from components.programs import find_program
from errors import IsaError, PermanentError, TemporaryError

BACKUP_SECONDS = 6 * 3600.0


def back_up_databases(access: Access, writer: SetWriter, databases: list[str]) -> list[str]:
    """Store an online backup of each database.

    Args:
        access: the way in.
        writer: of the backup.
        databases: names; `system` among them.

    Returns:
        `database NAME: why` of each that could not be stored, where others could.

    Raises:
        TemporaryError: no member gives any.
        PermanentError: neo4j-admin is missing; every store is inconsistent.
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
        # under its own name: a chain and the database's name are told from it
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
    """Of neo4j-admin."""
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
