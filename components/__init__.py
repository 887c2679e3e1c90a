"""The seven engines, one folder each with the same files, in the order in which the design deploys them."""

from __future__ import annotations

from archive.manifest import PLATFORM
from components.base import BackupTarget, Component

COMPONENTS: dict[str, Component] = {
    component.name: component
    for component in (
        Component("postgresql", "PostgreSQL HA"),
        Component("redis", "Redis Cluster"),
        Component("nats", "NATS JetStream"),
        Component("minio", "MinIO"),
        Component("qdrant", "Qdrant"),
        Component("neo4j", "Neo4j"),
        Component("emqx", "EMQX"),
    )
}

# What backups are taken of: the engines, and what runs them.
SETS: dict[str, BackupTarget] = {**COMPONENTS, PLATFORM: BackupTarget(PLATFORM, "Platform")}
