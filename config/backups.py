"""Settings of backups, and of the proofs that they restore."""

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
            raise ValueError("holds a PRIVATE key: take it out of here and replace that pair")
        if not AGE_RECIPIENT.fullmatch(recipient):
            raise ValueError(f"{recipient[:12]}… is not an age public key (age1 and 58 characters)")
    if len(set(value)) < 2:
        raise ValueError(
            "two different keys at least: the verify pool's and an offline break-glass key"
        )
    return value


def _public_key(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError(f"{value[:12]}… is no Ed25519 public key: 64 hexadecimal digits")
    return value


def _public_keys(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_public_key(key) for key in value)


class RetentionSettings(Section):
    """How many sets of each component are kept, by age (grandfather, father, son)."""

    daily: Count = Field(default=14, ge=1, description="days of which the last set is kept")
    weekly: Count = Field(default=8, ge=0, description="weeks of which the last set is kept")
    monthly: Count = Field(default=12, ge=0, description="months of which the last set is kept")
    yearly: Count = Field(default=0, ge=0, description="years of which the last set is kept")
    grace_hours: Count = Field(
        default=48,
        ge=1,
        description="objects without a manifest are swept when they are so old, hours; longer than any backup takes",
    )


class PostgresqlBackup(Section):
    """PostgreSQL's backups."""

    full_every_days: Count = Field(
        default=1,
        ge=1,
        description="days between full physical backups; those between are incremental, where the server has "
        "`summarize_wal` on (17 and newer). 1: every one is full",
    )


class NatsAccount(Section):
    """An account of NATS, by one of its users."""

    user: str = Field(description="name of a user who may use the JetStream API")
    secret: DnsLabel = Field(description="Secret in the engines' namespace with the password")
    key: str = Field(description="key in it")


class NatsBackup(Section):
    """NATS' backups."""

    accounts: tuple[NatsAccount, ...] = Field(
        default=(),
        description="further accounts with streams, each `{user, secret, key}`; the platform's own is always in",
    )


class MinioBackup(Section):
    """MinIO's backups."""

    full_every_days: Count = Field(
        default=7,
        ge=1,
        description="days between full backups; those between hold new versions only and need the earlier ones",
    )


class Neo4jBackup(Section):
    """Neo4j's backups."""

    offline: bool = Field(
        default=False,
        description="Community only: whether its one member may be stopped while the dump is made; "
        "without it there is no backup",
    )


class BackupSigner(Section):
    """A key that backup workers sign manifests with."""

    key: Annotated[str, AfterValidator(_public_key)] = Field(
        description="Ed25519 public key in hexadecimal (`isa backup signer` prints the worker's)"
    )
    since: AwareDatetime | None = Field(
        default=None, description="backups that began earlier do not count, ISO 8601 with zone"
    )
    until: AwareDatetime | None = Field(
        default=None,
        description="backups that began later do not count: for a key that was replaced",
    )


class BackupSettings(Section):
    """Backups: who can read them, how they go about it, how long they stay."""

    age_recipients: Annotated[tuple[str, ...], AfterValidator(_recipients)] = Field(
        description="age public keys; backup workers hold none of the private ones"
    )
    signers: tuple[BackupSigner, ...] = Field(
        default=(),
        description="whose manifests count, each `{key, since, until}`: the key of the backup workers, and earlier "
        "keys as long as their backups are kept. None: no backup is made or read",
    )
    signing_secret: DnsLabel = Field(
        default="isa-backup-signing",
        description="Secret in the control namespace whose key `key` is the backup workers' Ed25519 private key in PEM",
    )
    programs: tuple[UserPath, ...] = Field(
        default=(),
        description="directories that are searched before PATH for pg_basebackup, pg_dump, pg_dumpall and "
        "neo4j-admin; each of the server's major version or newer",
    )
    spool: UserPath = Field(
        default=Path("/var/tmp/isa-cloud-spool"),
        description="directory for streams that do not wait (NATS, Qdrant, Redis, Neo4j), of the process's user "
        "alone; room for the largest of them",
    )
    max_parallel: Count = Field(
        default=3, ge=1, le=8, description="components that are backed up at the same time"
    )
    attempts: Count = Field(
        default=3, ge=1, description="tries of a backup that fails for a temporary reason"
    )
    retry_delay_seconds: Seconds = Field(
        default=20.0,
        ge=0,
        description="pause between tries, seconds; a failover takes about as long",
    )
    stall_seconds: Seconds = Field(
        default=600.0,
        gt=0,
        description="a source that sends nothing for so long is given up, seconds",
    )
    object_lock_days: Count = Field(
        default=0,
        ge=0,
        description="days for which the store refuses to delete a set's objects (S3 object lock, compliance), "
        "extended daily for sets that retention keeps; "
        "0: not used",
    )
    prefect_database_secret: DnsLabel = Field(
        default="prefect-database",
        description="Secret in the control namespace whose key `url` is the connection URL of Prefect's database; "
        "without it the set `platform` is partial",
    )
    retention: RetentionSettings = RetentionSettings()
    postgresql: PostgresqlBackup = PostgresqlBackup()
    nats: NatsBackup = NatsBackup()
    minio: MinioBackup = MinioBackup()
    neo4j: Neo4jBackup = Neo4jBackup()


class VerifySettings(Section):
    """Proofs of restores: who opens the sets, and where the scratch engines run."""

    identity_secret: DnsLabel = Field(
        default="isa-verify-identity",
        description="Secret in the control namespace whose key `identity` is the verify pool's age private key",
    )
    signers: Annotated[tuple[str, ...], AfterValidator(_public_keys)] = Field(
        default=(),
        description="public keys, in hexadecimal, of those who may say that a restore is proven: the verify pool's "
        "(`isa verify signer` prints it). None: no verdict counts",
    )
    image: Image | None = Field(
        default=None,
        description="the worker's own image, `registry/repository:tag`: it fetches a set into a scratch engine's "
        "volume (deployments/worker)",
    )
    storage_class: DnsLabel = Field(
        default="infotrend-scratch",
        description="class of the scratch engines' volumes, which go with their pods; made with the storage classes",
    )
    max_parallel: Count = Field(
        default=2, ge=1, le=8, description="components that are proven at the same time"
    )
    attempts: Count = Field(
        default=2, ge=1, description="tries of a proof that ends in an error, not in a verdict"
    )
    retry_delay_seconds: Seconds = Field(
        default=30.0, ge=0, description="pause between tries, seconds"
    )
    timeout_seconds: Seconds = Field(
        default=14400.0,
        gt=0,
        description="limit for a scratch engine to get its data and to serve, seconds; then it is removed",
    )
    stale_days: Count = Field(
        default=8,
        ge=1,
        description="a component without a passing proof for so long is stale, days",
    )
    metrics_file: UserPath | None = Field(
        default=None,
        description="file for node-exporter's textfile collector, written after every run of proofs",
    )
    pushgateway: str | None = Field(
        default=None, description="URL of a Pushgateway that gets the same metrics"
    )

    @property
    def pushgateway_port(self) -> int:
        """Where the Pushgateway listens: a network policy opens it; 0 where there is none."""
        if not self.pushgateway:
            return 0
        url = urlsplit(self.pushgateway)
        return url.port or (443 if url.scheme == "https" else 80)


class RebuildSettings(Section):
    """Rebuilds: who waits how long for whom, and what is kept."""

    approval_minutes: Count = Field(
        default=60,
        ge=1,
        description="an approval that was not given for so long is a refusal, minutes",
    )
    keep_volumes_days: Count = Field(
        default=14,
        ge=0,
        description="old volumes are kept for so long after the comparison that showed the new ones equal, days",
    )
