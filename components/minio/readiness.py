"""MinIO: four servers with one drive each; three of them take writes."""

from __future__ import annotations

from components.base import Workload
from config.models import Settings


def workloads(settings: Settings) -> tuple[Workload, ...]:
    """What must run for this component, as Kubernetes sees it."""
    return (Workload("StatefulSet", "minio", settings.components.minio.members),)
