"""One control room for all that goes through it; the tests beside this folder do without."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from config.loading import variable
from config.sections.control import ScheduleSettings
from sandbox.control_room import ControlRoom

from ..conftest import Backups


@pytest.fixture(scope="package")
def room(backups: Backups) -> Iterator[ControlRoom]:
    """A Prefect server with a worker beside the platform; each test leaves it as it is.

    Its schedules are half a day away: a test that runs over one in the morning finds no sets but its own.
    """
    away = datetime.now(UTC) + timedelta(hours=12)
    # backups between two nights have no schedule in a sandbox
    crons = set(ScheduleSettings.model_fields) - {"timezone", "components"}
    with pytest.MonkeyPatch.context() as environ:
        for name in crons:
            environ.setenv(variable(f"schedules.{name}"), f"{away.minute} {away.hour} * * *")
        made = ControlRoom(backups.sandbox)
        made.up()
        yield made
        made.down(purge=True)
    backups.environment.kube.delete("v1", "Secret", "prefect-database", "isa-cloud-control")
