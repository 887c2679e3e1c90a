"""PostgreSQL HA: three nodes under repmgr, and two Pgpool proxies in front."""

from __future__ import annotations

from components.base import Workload
from config.models import Settings

PGPOOL_REPLICAS = 2  # one may be drained while clients keep their entry point


def workloads(settings: Settings) -> tuple[Workload, ...]:
    """What must run for this component, as Kubernetes sees it."""
    return (
        Workload("StatefulSet", "postgresql-ha-postgresql", settings.components.postgresql.members),
        Workload("Deployment", "postgresql-ha-pgpool", PGPOOL_REPLICAS),
    )
