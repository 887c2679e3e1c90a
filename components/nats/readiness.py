"""NATS JetStream: three servers, of which two keep the meta leader."""

from __future__ import annotations

from components.base import Workload
from config.models import Settings


def workloads(settings: Settings) -> tuple[Workload, ...]:
    """What must run for this component, as Kubernetes sees it."""
    return (Workload("StatefulSet", "nats", settings.components.nats.members),)
