"""One control room for all that goes through it; the tests beside this folder do without."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deployments.sandbox.control_room import ControlRoom

from ..conftest import Backups


@pytest.fixture(scope="package")
def room(backups: Backups) -> Iterator[ControlRoom]:
    """A Prefect server with a worker beside the platform; each test leaves it as it is."""
    made = ControlRoom(backups.sandbox)
    made.up()
    yield made
    made.down(purge=True)
    backups.vault.kube.delete("v1", "Secret", "prefect-database", "isa-cloud-control")
