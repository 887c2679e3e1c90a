"""The seven engines, one folder each with the same files, in the order in which the design deploys them."""

from __future__ import annotations

from collections.abc import Callable

from archive.manifest import PLATFORM
from archive.writer import SetWriter
from components.access import Access
from components.base import Component, Restore, Taken
from components.emqx import backup as emqx_backup
from components.emqx import credentials as emqx_credentials
from components.emqx import live as emqx_live
from components.emqx import readiness as emqx
from components.emqx import restore as emqx_restore
from components.minio import backup as minio_backup
from components.minio import credentials as minio_credentials
from components.minio import live as minio_live
from components.minio import readiness as minio
from components.minio import restore as minio_restore
from components.nats import backup as nats_backup
from components.nats import credentials as nats_credentials
from components.nats import live as nats_live
from components.nats import readiness as nats
from components.nats import restore as nats_restore
from components.neo4j import backup as neo4j_backup
from components.neo4j import credentials as neo4j_credentials
from components.neo4j import live as neo4j_live
from components.neo4j import readiness as neo4j
from components.neo4j import restore as neo4j_restore
from components.platform import backup as platform_backup
from components.platform import restore as platform_restore
from components.postgresql import backup as postgresql_backup
from components.postgresql import credentials as postgresql_credentials
from components.postgresql import live as postgresql_live
from components.postgresql import readiness as postgresql
from components.postgresql import restore as postgresql_restore
from components.qdrant import backup as qdrant_backup
from components.qdrant import credentials as qdrant_credentials
from components.qdrant import live as qdrant_live
from components.qdrant import readiness as qdrant
from components.qdrant import restore as qdrant_restore
from components.redis import backup as redis_backup
from components.redis import credentials as redis_credentials
from components.redis import live as redis_live
from components.redis import readiness as redis
from components.redis import restore as redis_restore

COMPONENTS: dict[str, Component] = {
    component.name: component
    for component in (
        Component(
            "postgresql",
            "PostgreSQL HA",
            postgresql_credentials.SECRETS,
            postgresql.workloads,
            postgresql.ask,
            postgresql_backup.back_up,
            postgresql_restore.RESTORE,
            postgresql_live.LIVE,
        ),
        Component(
            "redis",
            "Redis Cluster",
            redis_credentials.SECRETS,
            redis.workloads,
            redis.ask,
            redis_backup.back_up,
            redis_restore.RESTORE,
            redis_live.LIVE,
        ),
        Component(
            "nats",
            "NATS JetStream",
            nats_credentials.SECRETS,
            nats.workloads,
            nats.ask,
            nats_backup.back_up,
            nats_restore.RESTORE,
            nats_live.LIVE,
        ),
        Component(
            "minio",
            "MinIO",
            minio_credentials.SECRETS,
            minio.workloads,
            minio.ask,
            minio_backup.back_up,
            minio_restore.RESTORE,
            minio_live.LIVE,
        ),
        Component(
            "qdrant",
            "Qdrant",
            qdrant_credentials.SECRETS,
            qdrant.workloads,
            qdrant.ask,
            qdrant_backup.back_up,
            qdrant_restore.RESTORE,
            qdrant_live.LIVE,
        ),
        Component(
            "neo4j",
            "Neo4j",
            neo4j_credentials.SECRETS,
            neo4j.workloads,
            neo4j.ask,
            neo4j_backup.back_up,
            neo4j_restore.RESTORE,
            neo4j_live.LIVE,
        ),
        Component(
            "emqx",
            "EMQX",
            emqx_credentials.SECRETS,
            emqx.workloads,
            emqx.ask,
            emqx_backup.back_up,
            emqx_restore.RESTORE,
            emqx_live.LIVE,
        ),
    )
}

# What backups are taken of: the engines, and what runs them.
SETS: dict[str, Callable[[Access, SetWriter], Taken]] = {
    **{component.name: component.back_up for component in COMPONENTS.values()},
    PLATFORM: platform_backup.back_up,
}

# How they are brought back.
RESTORES: dict[str, Restore] = {
    **{component.name: component.restore for component in COMPONENTS.values()},
    PLATFORM: platform_restore.RESTORE,
}
