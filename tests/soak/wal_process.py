"""The stream of the soak, as a process that imports what the service does: `python -m tests.soak.wal_process PLAN`."""

from __future__ import annotations

import json
import sys
import threading
from base64 import b64encode
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

from archive.object_store.store import Store
from archive.signing import public_half, read_signing_key
from components.access import Endpoint
from config.models import ObjectStoreSettings
from config.sections.backups import BackupSigner
from config.sections.wal import PostgresqlWal
from operations.runner.context import RunContext
from operations.wal.monitor import StreamMonitor
from operations.wal.service import run_stream
from sandbox.machine import postgres
from tests.environments import environment_with
from tests.unit.stored import Stored, settings_of

PASSWORD = "of-nobody"  # of tests/integration/postgresql/conftest.py


def stream(plan: Path) -> None:
    """Run the service on the servers that a file names, until it is killed."""
    document = json.loads(plan.read_text())
    key = read_signing_key(document["signing"], "the soak")
    signers = (BackupSigner(key=public_half(key)),)

    def endpoints(*_: object) -> list[Endpoint]:
        nodes = json.loads(plan.read_text())["nodes"]
        return [Endpoint(name, "127.0.0.1", port, "127.0.0.1", "here") for name, port in nodes]

    wal = SimpleNamespace(postgresql=PostgresqlWal(enabled=True, spool=Path(document["spool"])))
    backup = SimpleNamespace(
        signers=signers, signing_secret="signing", age_recipients=(document["recipient"],),
        programs=[postgres.programs()], stall_seconds=60,
    )  # fmt: skip
    settings = settings_of(
        environment="soak", backup=backup, wal=wal,
        components=SimpleNamespace(postgresql=SimpleNamespace(members=2)),
    )  # fmt: skip
    access = SimpleNamespace(
        settings=settings, timeout_seconds=4.0, secret=lambda name, key: PASSWORD, endpoints=endpoints
    )  # fmt: skip
    kube = Stored()
    secret = {"key": b64encode(document["signing"].encode()).decode()}
    kube.objects["Secret", "signing"] = {"metadata": {"name": "signing"}, "data": secret}
    environment = environment_with(
        settings, kube=kube, store=opened(document["store"]), access=lambda: nullcontext(access)
    )

    def tell(line: str) -> None:
        print(f"{datetime.now(UTC):%H:%M:%S.%f} {line}", flush=True)

    monitor = StreamMonitor(tell, wal.postgresql.spool_bytes)
    run_stream(
        environment,
        RunContext("soak"),
        monitor,
        threading.Event(),
        open_store=lambda one: one.store,
    )


def opened(store: dict[str, str]) -> Store:
    """The bucket by the sandbox's description of it."""
    settings = ObjectStoreSettings(endpoint=store["endpoint"], bucket=store["bucket"])
    keys = {"access-key": store["access_key"], "secret-key": store["secret_key"]}
    return Store.open(settings, keys)


if __name__ == "__main__":
    stream(Path(sys.argv[1]))
