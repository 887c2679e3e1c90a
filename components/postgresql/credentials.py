"""PostgreSQL HA: passwords of the application, the superuser, repmgr and Pgpool."""

from __future__ import annotations

from cluster.credentials import SecretSpec, password

SECRETS = (
    SecretSpec(
        "postgresql-ha-auth",
        {"password": password, "postgres-password": password, "repmgr-password": password},
    ),
    SecretSpec("pgpool-auth", {"admin-password": password, "sr-check-password": password}),
)
