"""What every unit test begins with."""

from __future__ import annotations

import pytest

from cluster.command import CANCELLATION


@pytest.fixture(autouse=True)
def no_run_is_cancelled() -> None:
    """A process has one run; here it has many tests, and one that cancels must not end those behind it."""
    CANCELLATION.clear()
