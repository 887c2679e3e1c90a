"""The platform with real engines, whole before and after each test of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .live import Live


@pytest.fixture
def live(engines: Live) -> Iterator[Live]:
    """The platform, whole before and after the test."""
    engines.await_state("ready")
    yield engines
    engines.heal()
    engines.await_state("ready")
