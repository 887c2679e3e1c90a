"""Qdrant: three peers under Raft."""

from __future__ import annotations

from components.base import Workload
from config.models import Settings


def workloads(settings: Settings) -> tuple[Workload, ...]:
    """What must run for this component, as Kubernetes sees it."""
    return (Workload("StatefulSet", "qdrant", settings.components.qdrant.members),)
