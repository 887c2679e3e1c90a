"""MinIO: the root user, its name generated too."""

from __future__ import annotations

from cluster.credentials import SecretSpec, password

SECRETS = (SecretSpec("minio-auth", {"rootUser": password, "rootPassword": password}),)
