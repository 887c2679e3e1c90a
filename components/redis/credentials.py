"""Redis Cluster: one password for clients and replication."""

from __future__ import annotations

from cluster.credentials import SecretSpec, password

SECRETS = (SecretSpec("redis-auth", {"redis-password": password}),)
