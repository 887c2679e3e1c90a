"""What all integration tests stand on: one embedded cluster of their own, and tiny platforms to deploy on it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.sandbox.cluster import Sandbox

from .platform_tree import PlatformTree


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """A running sandbox that belongs to this test process."""
    made = Sandbox(f"test-{os.getpid()}")
    try:
        made.up(engines=False)
        yield made
    finally:
        made.down(purge=True)


@pytest.fixture
def tree(sandbox: Sandbox, tmp_path: Path) -> Iterator[PlatformTree]:
    """An empty platform in namespaces of its own; the test declares what it needs in it."""
    made = PlatformTree(sandbox, tmp_path, f"t-{uuid.uuid4().hex[:8]}")
    yield made
    made.remove()
