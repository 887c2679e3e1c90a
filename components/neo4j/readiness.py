"""Neo4j: each member is a release and a StatefulSet of its own; none gets ready before all have met."""

from __future__ import annotations

from components.access import Access
from components.base import Report, Workload
from config.models import Settings


def workloads(settings: Settings) -> tuple[Workload, ...]:
    """What must run for this component, as Kubernetes sees it."""
    members = settings.components.neo4j.members
    return tuple(
        Workload("StatefulSet", f"neo4j-{n}", 1, group="neo4j") for n in range(1, members + 1)
    )


def ask(access: Access) -> Report:
    """Ask the engine."""
    return Report(())
