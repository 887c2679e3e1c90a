"""What runs by itself: as the settings say, and once a night also when the clocks change."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from prefect.client.schemas.schedules import CronSchedule as Declared
from prefect.server.schemas.schedules import CronSchedule
from pydantic import ValidationError

from config.loading import load
from config.sections.control import NEVER, ComponentSchedules, NotifySettings, ScheduleSettings
from operations.backup.slot import night
from tasks.server.deployed import filled, registered, variables

EVERY_COMPONENT = {
    f"ISA_SCHEDULES__COMPONENTS__{name.upper()}": "5 * * * *"
    for name in ComponentSchedules.model_fields
}
WHOLE = load("sandbox", {"ISA_SCHEDULES__TIMEZONE": "Europe/Berlin", **EVERY_COMPONENT})
SETTINGS, ENVIRON = WHOLE.schedules, variables(WHOLE)
ROWS = [
    (deployment["name"], schedule)
    for deployment in registered(WHOLE)["deployments"]
    for schedule in deployment.get("schedules", ())
]
# The nights around both changes of each zone; Tokyo has none.
CHANGES = {
    "Europe/Berlin": (date(2026, 3, 29), date(2026, 10, 25)),
    "America/New_York": (date(2026, 3, 8), date(2026, 11, 1)),
    "Asia/Tokyo": (date(2026, 3, 29),),
}


def runs(cron: str, zone: str, first: date, days: int) -> list[datetime]:
    """What Prefect's scheduler makes of some days: every hour it asks for the next three runs.

    One that it has made already (the same time) is not made again.
    """
    schedule = CronSchedule(cron=cron, timezone=zone)

    def midnight(day: date) -> datetime:
        return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)

    begin, end = midnight(first), midnight(first + timedelta(days=days))

    async def ask() -> set[datetime]:
        made: set[datetime] = set()
        now = begin
        while now < end:
            made.update(await schedule.get_dates(n=3, start=now))
            now += timedelta(hours=1)
        return made

    return sorted(found for found in asyncio.run(ask()) if begin <= found < end)


@pytest.mark.parametrize("cron", ["30 0 * * *", "30 1 * * *", "30 2 * * *", "0 3 * * *"])
@pytest.mark.parametrize(("zone", "change"), [(z, c) for z, days in CHANGES.items() for c in days])
def test_each_night_gets_one_run_and_a_slot_of_its_own(cron: str, zone: str, change: date) -> None:
    first = change - timedelta(days=1)
    found = [night(run, zone) for run in runs(cron, zone, first, days=3)]
    assert found == [str(first + timedelta(days=day)) for day in range(3)]


def test_by_utcs_day_two_nights_would_be_one() -> None:
    spring = runs("30 1 * * *", "Europe/Berlin", date(2026, 3, 28), days=3)
    assert [night(run, "UTC") for run in spring] == ["2026-03-28", "2026-03-29", "2026-03-29"]


@pytest.mark.parametrize(("deployment", "schedule"), ROWS, ids=lambda row: str(row)[:20])
def test_every_schedule_is_the_settings(deployment: str, schedule: dict[str, str]) -> None:
    cron, zone = filled(schedule["cron"], ENVIRON), filled(schedule["timezone"], ENVIRON)
    own = SETTINGS.model_dump()
    assert cron in {*own.pop("components").values(), *own.values()}
    assert zone == "Europe/Berlin"
    assert Declared(cron=cron, timezone=zone)


@pytest.mark.parametrize(
    "wrong",
    [
        {"timezone": "Berlin"},
        {"backup": "0 1 * *"},
        {"backup": "nightly"},
        {"components": {"nats": "often"}},
        {"components": {"etcd": "0 * * * *"}},
    ],
)
def test_what_is_no_schedule_is_a_fault_of_the_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ScheduleSettings(**wrong)


def test_nats_and_minio_have_a_backup_every_quarter_of_an_hour_and_two_others_every_hour() -> None:
    midnight = datetime(2026, 6, 1, tzinfo=UTC)

    def runs_of_a_day(cron: str) -> int:
        dates = CronSchedule(cron=cron).get_dates(n=200, start=midnight)
        return sum(one < midnight + timedelta(days=1) for one in asyncio.run(dates))

    crons = ComponentSchedules().model_dump().items()
    counts = {name: runs_of_a_day(cron) for name, cron in crons if cron != NEVER}
    assert counts == {"nats": 96, "minio": 96, "qdrant": 24, "emqx": 24}


def test_a_type_of_block_that_loses_messages_is_refused() -> None:
    with pytest.raises(ValidationError, match="create a custom-webhook"):
        NotifySettings(blocks=("slack-webhook/on-call", "webhook/pager"))
