"""Settings of the control room: schedules, limits of parallel runs, and notifications."""

from __future__ import annotations

from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field

from config.values import Section


def _zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError(f"{value!r} is not a time zone: expected a name such as Europe/Berlin")
    return value


# Prefect looks closer when `isa setup` takes it there.
NEVER = "never"
Cron = Annotated[str, Field(pattern=r"^\S+( +\S+){4}$")]
OptionalCron = Annotated[str, Field(pattern=rf"^({NEVER}|\S+( +\S+){{4}})$")]


class ComponentSchedules(Section):
    """Schedules of backups between two nightly ones. Such a backup stores only what has changed."""

    postgresql: OptionalCron = Field(default=NEVER, description="PostgreSQL, cron, or `never`")
    redis: OptionalCron = Field(default=NEVER, description="Redis, cron, or `never`")
    nats: OptionalCron = Field(default="5-59/15 * * * *", description="NATS, cron, or `never`")
    minio: OptionalCron = Field(default="8-59/15 * * * *", description="MinIO, cron, or `never`")
    qdrant: OptionalCron = Field(default="35 * * * *", description="Qdrant, cron, or `never`")
    neo4j: OptionalCron = Field(default=NEVER, description="Neo4j, cron, or `never`")
    emqx: OptionalCron = Field(default="40 * * * *", description="EMQX, cron, or `never`")
    platform: OptionalCron = Field(
        default=NEVER, description="the platform itself, cron, or `never`"
    )


class ScheduleSettings(Section):
    """Schedules of the deployments. `isa setup` registers them on the Prefect server."""

    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC",
        description="IANA name of the time zone of all schedules, and of the date that a nightly backup belongs to",
    )
    backup: Cron = Field(default="0 1 * * *", description="nightly backups, cron")
    components: ComponentSchedules = ComponentSchedules()
    verify: Cron = Field(
        default="0 5 * * *",
        description="verification of the backups that the end of the backup run did not start, in case its event was "
        "lost, cron",
    )
    sample: Cron = Field(
        default="0 7 * * 6", description="verification of a sample of older backups, cron"
    )
    retention: Cron = Field(
        default="0 9 * * *", description="the list of backups that may be removed, cron"
    )
    doctor: Cron = Field(default="30 * * * *", description="the doctor, cron")


class PoolSettings(Section):
    """The work pool of the environment. `isa setup` registers it on the Prefect server."""

    type: Literal["process", "kubernetes"] = Field(
        default="process",
        description="what a run is: a process of its worker, or a Kubernetes Job, which outlives its worker "
        "(`isa worker --jobs`)",
    )
    runs: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="most runs at the same time, over all its workers; others wait. Unset: the server's own limit",
    )


def _block(value: str) -> str:
    if value.startswith("webhook/"):
        # prefect/blocks/webhook.py: they share one transport, and the first that has done closes it for the others
        raise ValueError(
            "a block of this type loses messages that are sent at the same time: create a custom-webhook"
        )
    return value


Block = Annotated[str, Field(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$"), AfterValidator(_block)]


class NotifySettings(Section):
    """Who is notified when something needs a person."""

    blocks: tuple[Block, ...] = Field(
        default=(),
        description="blocks of the Prefect server, each `TYPE/NAME` as in `slack-webhook/on-call`. The blocks hold "
        "addresses and passwords. Empty: no messages are sent",
    )
