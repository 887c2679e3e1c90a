"""NATS JetStream: three servers, of which two keep the meta leader."""

from __future__ import annotations

from config.models import Settings

from components.base import Workload


def workloads(settings: Settings) -> tuple[Workload, ...]:
    """What must run for this component, as Kubernetes sees it."""
    return (Workload("StatefulSet", "nats", settings.components.nats.members),)
