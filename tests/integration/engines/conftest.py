"""One platform with real engines for all tests of this folder; each test leaves it whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.loading import load
from deployments.sandbox.cluster import Sandbox
from operations.platform import Platform

from .live import Live

ISA = str(Path(sys.executable).with_name("isa"))


@pytest.fixture(scope="session")
def engines() -> Iterator[Live]:
    """The whole platform, deployed onto engines."""
    sandbox = Sandbox(f"engines-{os.getpid()}")
    try:
        sandbox.up(engines=True)
        environ = sandbox.environ()
        subprocess.run([ISA, "deploy", "--local"], env=environ, check=True, timeout=400)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", environ["PATH"])
            settings = load("sandbox", environ=sandbox.settings_environ())
            yield Live(sandbox, Platform.open(settings))
    finally:
        sandbox.down(purge=True)


@pytest.fixture
def live(engines: Live) -> Iterator[Live]:
    """The platform, whole before and after the test."""
    engines.await_state("ready")
    yield engines
    engines.heal()
    engines.await_state("ready")
