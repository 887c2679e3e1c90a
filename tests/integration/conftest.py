"""What all integration tests stand on: one embedded cluster of their own, taken down at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from deployments.sandbox.cluster import Sandbox


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """A running sandbox that belongs to this test process."""
    made = Sandbox(f"test-{os.getpid()}")
    made.up()
    yield made
    made.down(purge=True)
