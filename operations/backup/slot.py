"""The idempotency key (slot) of a backup: a date of the site's calendar, or any other text as a name.

A backup counts for a date only if it began on that day or later. One that was taken earlier, under a future
date, would leave that night without a backup. There is no limit on the other side: a run that starts late
keeps the date for which it was scheduled, and a schedule may skip days.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from errors import ArgumentError, Fault

TOLERANCE = timedelta(hours=1)  # clocks of workers differ
SLOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
_NIGHT = re.compile(r"\d{4}-\d{2}-\d{2}")


def night(planned: datetime, timezone: str) -> str:
    """Return the slot of a scheduled run: the site's calendar day for which it was scheduled.

    With UTC days two nights can be one: 01:30 in Berlin is 00:30 UTC in the night in which summer time begins, and
    23:30 UTC of the same day in the next night, which would then be skipped.

    Args:
        planned: when it was to start.
        timezone: IANA name; the schedule's.
    """
    return str(planned.astimezone(ZoneInfo(timezone)).date())


def interval_slot(planned: datetime) -> str:
    """Return the slot of a run between two nightly ones: the minute for which it was scheduled, in UTC.

    Args:
        planned: when it was to start.
    """
    return f"interval-{planned.astimezone(UTC):%Y%m%dT%H%MZ}"


def fills(slot: str, begun: datetime, timezone: str) -> bool:
    """Whether a backup that began at a time counts for a slot.

    Args:
        slot: a night or a name.
        begun: when the backup began.
        timezone: IANA name; the schedule's.
    """
    if _NIGHT.fullmatch(slot) is None:
        return True
    try:
        midnight = datetime.combine(date.fromisoformat(slot), time(), ZoneInfo(timezone))
        return begun >= midnight.astimezone(UTC) - TOLERANCE
    except (ValueError, OverflowError):  # no day of the calendar
        return False


def check_slot(slot: str, timezone: str, now: datetime | None = None) -> None:
    """Refuse a slot for which a backup taken now does not count.

    Args:
        slot: a night or a name; "" for none.
        timezone: IANA name; the schedule's.
        now: the present by default.

    Raises:
        ArgumentError: it is a date in the future, or not a valid name.
    """
    present = now or datetime.now(UTC)
    if slot and SLOT.fullmatch(slot) is None:
        what = f"{slot!r} is not a valid key"
        hint = "use letters, digits and `. _ : -`, at most 100 characters"
    elif not fills(slot, present, timezone):
        what = f"{slot} is in the future or not a date"
        hint = f"today is {night(present, timezone)} in {timezone}"
    else:
        return
    raise ArgumentError([Fault("--slot", what, hint)])
