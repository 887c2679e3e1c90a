"""Redis Cluster: three masters and a replica of each, six pods on six nodes."""

from __future__ import annotations

from components.base import Workload
from config.models import Settings


def workloads(settings: Settings) -> tuple[Workload, ...]:
    """What must run for this component, as Kubernetes sees it."""
    return (Workload("StatefulSet", "redis-cluster", settings.components.redis.members),)
