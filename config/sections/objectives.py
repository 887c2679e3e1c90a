"""Objectives of recovery: how old a recovery point may be, and how long a restore may take."""

from __future__ import annotations

from pydantic import Field

from config.values import Seconds, Section


class Objective(Section):
    """What one component promises. `isa proofs`, the doctor, the report and the alert rules measure against it."""

    rpo_seconds: Seconds = Field(
        default=129600.0,
        gt=0,
        description="recovery point objective: greatest age of the newest complete backup, seconds. The default of 36 "
        "hours allows one nightly backup to be late",
    )
    rto_seconds: Seconds = Field(
        default=14400.0,
        gt=0,
        description="recovery time objective: greatest duration of the last passed verification, which restores the "
        "whole component, seconds",
    )


class ObjectiveSettings(Section):
    """The objectives of each component."""

    postgresql: Objective = Objective()
    redis: Objective = Objective()
    nats: Objective = Objective()
    minio: Objective = Objective()
    qdrant: Objective = Objective()
    neo4j: Objective = Objective()
    emqx: Objective = Objective()
    platform: Objective = Objective()

    def of(self, component: str) -> Objective:
        """The objectives of one component.

        Args:
            component: name.
        """
        found = getattr(self, component)
        assert isinstance(found, Objective)
        return found
