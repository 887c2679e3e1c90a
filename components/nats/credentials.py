"""NATS: passwords of the system account and of the application account."""

from __future__ import annotations

from cluster.credentials import SecretSpec, password

SECRETS = (SecretSpec("nats-auth", {"sys-password": password, "app-password": password}),)
