"""Settings of backups, of their verification, and of rebuilds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, AwareDatetime, Field

from config.values import Count, DnsLabel, Image, Seconds, Section, UserPath

# Bech32 of an X25519 recipient: https://age-encryption.org/v1
AGE_RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}")


def _recipients(value: tuple[str, ...]) -> tuple[str, ...]:
    for recipient in value:
        if recipient.upper().startswith("AGE-SECRET-KEY-"):
            raise ValueError(
                "holds a PRIVATE key: remove it from this file and replace the key pair"
            )
        if not AGE_RECIPIENT.fullmatch(recipient):
            raise ValueError(
                f"{recipient[:12]}… is not an age public key (expected: age1 and 58 characters)"
            )
    if len(set(value)) < 2:
        raise ValueError(
            "at least two different keys: the verify pool's and an offline break-glass key"
        )
    return value


def _public_key(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError(
            f"{value[:12]}… is not an Ed25519 public key (expected: 64 hexadecimal digits)"
        )
    return value


def _public_keys(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_public_key(key) for key in value)


class RetentionSettings(Section):
    """How many backups of each component are kept, by age (grandfather, father, son)."""

    recent_hours: Count = Field(
        default=48,
        ge=1,
        description="hours before the newest backup in which every backup between two nightly ones is kept "
        "(`schedules.components`)",
    )
    daily: Count = Field(default=14, ge=1, description="daily backups to keep")
    weekly: Count = Field(default=8, ge=0, description="weekly backups to keep")
    monthly: Count = Field(default=12, ge=0, description="monthly backups to keep")
    yearly: Count = Field(default=0, ge=0, description="yearly backups to keep")
    grace_hours: Count = Field(
        default=48,
        ge=1,
        description="age at which objects without a manifest are removed, hours; must be longer than any backup takes",
    )


class PostgresqlBackup(Section):
    """PostgreSQL's backups."""

    full_every_days: Count = Field(
        default=1,
        ge=1,
        description="days between full physical backups. Those between are incremental if the server has "
        "`summarize_wal` on (PostgreSQL 17 and newer). 1: every backup is full",
    )


class NatsAccount(Section):
    """An account of NATS, by one of its users."""

    user: str = Field(description="name of a user with access to the JetStream API")
    secret: DnsLabel = Field(description="Secret in the engines' namespace with the password")
    key: str = Field(description="key in that Secret")


class NatsBackup(Section):
    """NATS' backups."""

    full_every_days: Count = Field(
        default=1,
        ge=1,
        description="days between full backups. Those between hold the streams that have changed, and refer to earlier "
        "backups for the others",
    )
    accounts: tuple[NatsAccount, ...] = Field(
        default=(),
        description="further accounts with streams, each `{user, secret, key}`; the platform's own account is always "
        "included",
    )


class MinioBackup(Section):
    """MinIO's backups."""

    full_every_days: Count = Field(
        default=7,
        ge=1,
        description="days between full backups. Those between hold new versions only and depend on the earlier ones",
    )


class QdrantBackup(Section):
    """Qdrant's backups."""

    full_every_days: Count = Field(
        default=1,
        ge=1,
        description="days between full backups. Those between hold the collections that have changed, and refer to "
        "earlier backups for the others",
    )


class Neo4jBackup(Section):
    """Neo4j's backups."""

    offline: bool = Field(
        default=False,
        description="Community edition only: whether its one member may be stopped for a dump. If false, Neo4j "
        "Community is not backed up",
    )


class BackupSigner(Section):
    """A key that backup workers sign manifests with."""

    key: Annotated[str, AfterValidator(_public_key)] = Field(
        description="Ed25519 public key in hexadecimal (`isa backup signer` prints the worker's)"
    )
    since: AwareDatetime | None = Field(
        default=None, description="backups that began earlier are refused, ISO 8601 with zone"
    )
    until: AwareDatetime | None = Field(
        default=None,
        description="backups that began later are refused: for a key that was replaced",
    )


class BackupSettings(Section):
    """Backups: who can read them, how they are taken, how long they are kept."""

    age_recipients: Annotated[tuple[str, ...], AfterValidator(_recipients)] = Field(
        description="age public keys. Backup workers hold none of the private keys"
    )
    signers: tuple[BackupSigner, ...] = Field(
        default=(),
        description="keys whose manifests are accepted, each `{key, since, until}`: the key of the backup workers, "
        "and earlier keys as long as their backups are kept. Empty: no backup is taken or read",
    )
    signing_secret: DnsLabel = Field(
        default="isa-backup-signing",
        description="Secret in the control namespace. Its key `key` is the backup workers' Ed25519 private key in PEM",
    )
    programs: tuple[UserPath, ...] = Field(
        default=(),
        description="directories searched before PATH for pg_basebackup, pg_dump, pg_dumpall and neo4j-admin. Each "
        "must be of the server's major version or newer",
    )
    spool: UserPath = Field(
        default=Path("/var/tmp/isa-cloud-spool"),
        description="directory for streams that cannot wait for the store (NATS, Qdrant, Redis, Neo4j). Only the "
        "process's user may access it. It needs room for the largest stream",
    )
    max_parallel: Count = Field(
        default=3, ge=1, le=8, description="components backed up at the same time"
    )
    attempts: Count = Field(
        default=3, ge=1, description="attempts for a backup that fails for a temporary reason"
    )
    retry_delay_seconds: Seconds = Field(
        default=20.0,
        ge=0,
        description="pause between attempts, seconds; about the time of a failover",
    )
    stall_seconds: Seconds = Field(
        default=600.0,
        gt=0,
        description="a source that sends nothing for this long is treated as failed, seconds",
    )
    object_lock_days: Count = Field(
        default=0,
        ge=0,
        description="days for which the store refuses to delete a backup's objects (S3 object lock, compliance "
        "mode). Extended daily for backups that retention keeps. 0: no lock",
    )
    prefect_database_secret: DnsLabel = Field(
        default="prefect-database",
        description="Secret in the control namespace. Its key `url` is the connection URL of Prefect's database. "
        "Without it the backup of `platform` is partial",
    )
    retention: RetentionSettings = RetentionSettings()
    postgresql: PostgresqlBackup = PostgresqlBackup()
    nats: NatsBackup = NatsBackup()
    minio: MinioBackup = MinioBackup()
    qdrant: QdrantBackup = QdrantBackup()
    neo4j: Neo4jBackup = Neo4jBackup()


class VerifySettings(Section):
    """Verification of backups: who can decrypt them, and where the scratch engines run."""

    identity_secret: DnsLabel = Field(
        default="isa-verify-identity",
        description="Secret in the control namespace. Its key `identity` is the verify pool's age private key",
    )
    signers: Annotated[tuple[str, ...], AfterValidator(_public_keys)] = Field(
        default=(),
        description="public keys, in hexadecimal, of those who may say that a restore is proven: the verify pool's "
        "(`isa verify signer` prints it). None: no verdict counts",
    )
    image: Image | None = Field(
        default=None,
        description="the worker's own image, `registry/repository:tag`: it fetches a backup into a scratch engine's "
        "volume (deployments/worker)",
    )
    storage_class: DnsLabel = Field(
        default="infotrend-scratch",
        description="storage class of the scratch engines' volumes. They are deleted with their pods. Created with "
        "the other storage classes",
    )
    max_parallel: Count = Field(
        default=2, ge=1, le=8, description="components verified at the same time"
    )
    attempts: Count = Field(
        default=2,
        ge=1,
        description="attempts for a verification that ends in an error, not in a verdict",
    )
    retry_delay_seconds: Seconds = Field(
        default=30.0, ge=0, description="pause between attempts, seconds"
    )
    timeout_seconds: Seconds = Field(
        default=14400.0,
        gt=0,
        description="time for a scratch engine to load its data and accept connections, seconds; then it is removed",
    )
    stale_days: Count = Field(
        default=8,
        ge=1,
        description="a component without a passed verification for this long is stale, days",
    )
    metrics_file: UserPath | None = Field(
        default=None,
        description="file for node-exporter's textfile collector, written after every verify run",
    )
    pushgateway: str | None = Field(
        default=None, description="URL of a Pushgateway that receives the same metrics"
    )

    @property
    def pushgateway_port(self) -> int:
        """Port of the Pushgateway, which a network policy opens; 0 if there is none."""
        if not self.pushgateway:
            return 0
        url = urlsplit(self.pushgateway)
        return url.port or (443 if url.scheme == "https" else 80)


class RebuildSettings(Section):
    """Rebuilds: how long to wait for the approval, and how long old volumes are kept."""

    approval_minutes: Count = Field(
        default=60,
        ge=1,
        description="an approval that is not given within this time is a refusal, minutes",
    )
    keep_volumes_days: Count = Field(
        default=14,
        ge=0,
        description="old volumes are kept for this long after the comparison that showed the new data equal, days",
    )
