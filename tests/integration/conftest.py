"""What all integration tests stand on: one embedded cluster of their own, and tiny platforms to deploy on it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.loading import load
from operations.environment.environment import Environment
from sandbox.cluster import Sandbox
from sandbox.control_room import ControlRoom

from .engines.live import Live
from .platform_tree import PlatformTree

ISA = str(Path(sys.executable).with_name("isa"))
# What a shell starts in the background ignores it, and so would every command that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

HERE = Path(__file__).parent
CONTROL_ROOM = HERE / "backup" / "control_room"
# They need no engines, and go where there is time: both halves then end within a few minutes of each other.
BESIDE_ENGINES = [HERE / "test_least_privilege.py"]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at the mark
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which half of the tests one process runs, in case there are two (`make integration`), and in which order.

    Alone, either half leaves every other second idle. What needs no engines comes first: they cost a third of a core.
    """
    for item in items:
        engines = _with_engines(item) or any(item.path.is_relative_to(p) for p in BESIDE_ENGINES)
        item.add_marker(pytest.mark.xdist_group("engines" if engines else "control"))
    items.sort(key=lambda item: (_with_engines(item), item.path.is_relative_to(CONTROL_ROOM)))


def _with_engines(item: pytest.Item) -> bool:
    if item.path.is_relative_to(CONTROL_ROOM):
        return False
    return any(item.path.is_relative_to(HERE / name) for name in ("backup", "engines"))


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


@pytest.fixture(scope="session")
def engines() -> Iterator[Live]:
    """One platform with real engines for all tests that need them; each test leaves it whole."""
    sandbox = Sandbox(f"engines-{os.getpid()}")
    try:
        sandbox.up(engines=True)
        environ = sandbox.environ()
        subprocess.run([ISA, "deploy", "--local"], env=environ, check=True, timeout=400)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", environ["PATH"])
            settings = load("sandbox", environ=sandbox.settings_environ())
            yield Live(sandbox, Environment(settings).open_releases())
    finally:
        sandbox.down(purge=True)


@pytest.fixture(scope="module")
def room(sandbox: Sandbox) -> Iterator[ControlRoom]:
    """A Prefect server and worker beside the sandbox."""
    made = ControlRoom(sandbox)
    made.up()
    yield made
    made.down(purge=True)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Who must not be called."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.setblocking(False)
        yield made
