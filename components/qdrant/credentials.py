"""Qdrant: API keys for writing and for reading."""

from __future__ import annotations

from cluster.credentials import SecretSpec, password

SECRETS = (SecretSpec("qdrant-auth", {"api-key": password, "read-only-api-key": password}),)
