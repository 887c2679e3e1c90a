"""`isa wal stream` on the platform's PostgreSQL, with the rights and the key of its own account alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archive.object_store.store import Refused, Store
from archive.wal.names import wal_prefix
from cluster.credentials import read_secret
from cluster.lease import read_holder
from operations.documents.wal import STREAMING, WalNote
from operations.wal.note import read_note
from sandbox.site.object_store import ENVIRONMENT
from tests.contract import checked

from ..accounts import CONTROL, environ_of, log_in
from .live import Live
from .test_postgresql_gate import C, primary

ISA = str(Path(sys.executable).with_name("isa"))
LEASE = "isa-wal-postgresql"
WAIT_SECONDS = 180.0


class Stream:
    """A stream, as its Deployment runs it."""

    def __init__(self, environ: dict[str, str], directory: Path, name: str) -> None:
        self._log = directory / f"{name}.log"
        spool = {"ISA_WAL__POSTGRESQL__SPOOL": str(directory / name)}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [ISA, "wal", "stream"], env={**environ, **spool}, stdout=log, stderr=log
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def until(condition: Callable[[], bool], words: Callable[[], str]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, words()
        time.sleep(0.2)


def test_wal_is_streamed_by_its_own_account_through_a_failover_and_a_second_stream_waits(
    live: Live, tmp_path: Path
) -> None:
    environ = {
        name: environ_of(
            live.sandbox, log_in(live.sandbox, tmp_path, name).kubeconfig or tmp_path,
            ISA_WAL__POSTGRESQL__ENABLED="true",
        )
        for name in ("isa-wal", "isa-deployer")
    }  # fmt: skip
    kube, settings = live.environment.kube, live.environment.settings

    def note() -> WalNote | None:
        return read_note(read_holder(kube, settings, LEASE)[0])

    def streams(timeline: int) -> bool:
        found = note()
        fresh = found is not None and found.state == STREAMING and found.timeline >= timeline
        return fresh and found is not None and found.covers is not None

    def status(code: int) -> dict[str, Any]:
        done = subprocess.run(
            [ISA, "wal", "status", "--json"], env=environ["isa-deployer"], capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return checked(["wal", "status"], done.stdout, done.stderr)

    first = Stream(environ["isa-wal"], tmp_path, "first")
    try:
        until(lambda: streams(1), lambda: first.said)
        second = Stream(environ["isa-wal"], tmp_path, "second")
        try:
            until(lambda: f"lease {LEASE} is held by" in second.said, lambda: second.said)
        finally:
            assert second.end() == 0, second.said
        old = primary(live.ask(C))
        before = note()
        assert before is not None
        live.kill(old)
        until(lambda: streams(before.timeline + 1), lambda: f"{note()} {first.said}")
        found = status(0)
        assert found["stream"]["holder"].startswith(f"{os.uname().nodename}/{first.process.pid}/")
        # a rebuilt PostgreSQL is another system
        (system,) = (one for one in found["systems"] if one["system"] == before.system)
        assert (system["gaps"], len(system["ranges"])) == ([], 1)
        assert system["ranges"][0]["timelines"][-1] > before.timeline
        checks = {check["name"]: check for check in found["checks"]}
        assert checks["WAL coverage"]["ok"] and checks["WAL slots"]["ok"], json.dumps(checks)
    finally:
        assert first.end() == 0, first.said
        live.heal()
    assert first.said.splitlines()[-1] == "ended"
    found = status(1)  # nobody streams
    assert found["stream"]["holder"] == ""
    store = live.environment.open_store().store
    first_key = next(iter(store.list(wal_prefix(ENVIRONMENT)))).key
    keys = read_secret(kube, CONTROL, "isa-store-wal") or {}
    own = Store.open(settings.storage.object, keys)
    for refused in (
        lambda: own.get(first_key),
        lambda: own.delete(first_key),
        lambda: own.put(f"{ENVIRONMENT}/postgresql/x", b""),
    ):
        with pytest.raises(Refused):
            refused()
