"""Settings of the WAL that is stored between two backups."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from config.values import Count, Section, UserPath


class PostgresqlWal(Section):
    """PostgreSQL's WAL, stored continuously by `isa wal stream`."""

    enabled: bool = Field(
        default=False,
        description="whether PostgreSQL's WAL is stored continuously. Then `isa wal stream` has to run "
        "(deployments/worker/wal.yaml), and `isa doctor` reports it if it does not",
    )
    spool: UserPath = Field(
        default=Path("/var/tmp/isa-cloud-wal"),
        description="directory for WAL that is received and not stored yet. Only the process's user may access it. "
        "What is lost with it is received again",
    )
    spool_bytes: Count = Field(
        default=4 << 30,
        ge=128 << 20,
        description="size of the spool at which nothing more is received until the store has taken some, bytes. The "
        "servers keep the WAL then, up to max_slot_wal_keep_size. Its disk also needs room for what arrives within "
        "half a minute",
    )


class WalSettings(Section):
    """WAL that is stored between two backups."""

    postgresql: PostgresqlWal = PostgresqlWal()
