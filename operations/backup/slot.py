"""Which night a backup is for. A slot that is a date is a night of the site's calendar; any other text is a name.

A backup fills the slot of a night only if it began on that day or later. One that was made earlier, under the date of
a night to come, would leave that night without a backup. There is no limit on the other side: a run that starts late
keeps the date for which it was planned, and a schedule may leave days out.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from errors import ConfigurationError, Fault

TOLERANCE = timedelta(hours=1)  # clocks of workers differ
SLOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
_NIGHT = re.compile(r"\d{4}-\d{2}-\d{2}")


def night(planned: datetime, timezone: str) -> str:
    """The slot of a scheduled run: the site's own calendar day for which it was planned.

    By UTC's day two nights can be one: 01:30 in Berlin is 00:30 UTC in the night in which summer time begins, and 23:30
    UTC of the same day in the next one, which would find its set there and make none.

    Args:
        planned: when it was to start.
        timezone: IANA name; the schedule's.
    """
    return str(planned.astimezone(ZoneInfo(timezone)).date())


def fills(slot: str, begun: datetime, timezone: str) -> bool:
    """Whether a backup that began at a time can be the one for a slot.

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
    """Refuse a slot that a backup made now cannot be for.

    Args:
        slot: a night or a name; "" for none.
        timezone: IANA name; the schedule's.
        now: the present by default.

    Raises:
        ConfigurationError: it is a night to come, or no name.
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
    raise ConfigurationError([Fault("--slot", what, hint)])
