"""NATS says when it has read its settings; what it refuses to read again leaves that time as it was."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from components.access import Access, Endpoint
from components.nats.readiness import settings_read

pytestmark = pytest.mark.integration

PROGRAM = str(Path(sys.executable).with_name("nats-server"))


class Server:
    """A NATS server by itself, and its configuration."""

    def __init__(self, directory: Path) -> None:
        self.file, self.log = directory / "nats.conf", directory / "log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.monitor = probe.getsockname()[1]
        self.configure("1G")
        self.process = subprocess.Popen([PROGRAM, "--config", str(self.file)])

    def configure(self, store: str) -> None:
        directory = self.file.parent
        self.file.write_text(
            f'host: 127.0.0.1\nport: -1\nhttp: "127.0.0.1:{self.monitor}"\nlog_file: "{self.log}"\n'
            f'jetstream {{ store_dir: "{directory}/js", max_memory_store: 16M, max_file_store: {store} }}\n'
        )

    def reload(self, said: str) -> None:
        """Have it read its configuration again, until its log says how that ended."""
        before = self.log.read_text().count(said)
        self.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while self.log.read_text().count(said) == before:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.process.kill()
    made.process.wait()


def test_a_reload_that_is_refused_leaves_the_time_of_reading(server: Server) -> None:
    settings = SimpleNamespace(components=SimpleNamespace(nats=SimpleNamespace(members=1)))
    endpoint = Endpoint("nats-0", "127.0.0.1", server.monitor, "127.0.0.1", "")
    with httpx.Client(timeout=5) as http:
        access: Any = SimpleNamespace(settings=settings, http=http, endpoints=lambda *_: [endpoint])
        deadline = time.monotonic() + 20
        while not (first := settings_read(cast(Access, access))):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        server.configure("2G")
        server.reload("Reloaded server configuration")
        larger = settings_read(access)
        assert larger["nats-0"] > first["nats-0"]
        server.configure("512M")
        server.reload("Failed to reload server configuration")
        assert settings_read(access) == larger
