"""Settings of the control room: when what runs by itself, how much at once, and who is told."""

from __future__ import annotations

from typing import Annotated
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field

from config.values import Section


def _zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError(f"{value!r} is no time zone: a name such as Europe/Berlin")
    return value


# Prefect looks closer when `isa setup` takes it there.
Cron = Annotated[str, Field(pattern=r"^\S+( +\S+){4}$")]


class ScheduleSettings(Section):
    """When what runs by itself. `isa setup` takes it to the Prefect server."""

    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC",
        description="IANA name of the time zone of all schedules, and of the night that a backup is of",
    )
    backup: Cron = Field(default="0 1 * * *", description="the night's backups, cron")
    verify: Cron = Field(
        default="0 5 * * *",
        description="proofs of what the end of the backups did not start, should its event have been lost, cron",
    )
    sample: Cron = Field(default="0 7 * * 6", description="proofs of a sample of older sets, cron")
    retention: Cron = Field(default="0 9 * * *", description="the list of what may go, cron")
    doctor: Cron = Field(default="30 * * * *", description="the doctor, cron")


class PoolSettings(Section):
    """The work pool of the environment. `isa setup` takes it to the Prefect server."""

    runs: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="runs at once, of all its workers together; the others wait. None: as it is on the server",
    )


def _block(value: str) -> str:
    if value.startswith("webhook/"):
        # prefect/blocks/webhook.py: they share one transport, and the first that has done closes it for the others
        raise ValueError(
            "messages that go at once get lost in a block of this type: make a custom-webhook"
        )
    return value


Block = Annotated[str, Field(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$"), AfterValidator(_block)]


class NotifySettings(Section):
    """Who is told when something needs a person."""

    blocks: tuple[Block, ...] = Field(
        default=(),
        description="blocks of the Prefect server, each `TYPE/NAME` as in `slack-webhook/on-call`; addresses and "
        "passwords are in the blocks. None: nobody is told",
    )
