"""Qdrant: three peers under Raft."""

from __future__ import annotations

from components.access import Access
from components.base import Report, Workload
from config.models import Settings


def workloads(settings: Settings) -> tuple[Workload, ...]:
    """What must run for this component, as Kubernetes sees it."""
    return (Workload("StatefulSet", "qdrant", settings.components.qdrant.members),)


def ask(access: Access) -> Report:
    """Ask the engine."""
    return Report(())
