"""Prefect for the sandbox: a server with its own PostgreSQL, a worker, and the deployments of prefect.yaml.

The database is separate from the platform's engines, because Prefect must work when they do not. SQLite cannot be used:
it locks when two runs write at once (Prefect issues 10188, 17473).
"""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psycopg

from errors import PermanentError, TemporaryError
from sandbox.cluster import Sandbox
from sandbox.machine import binaries, postgres
from sandbox.machine.paths import locked, write_atomic
from sandbox.machine.processes import Daemon
from sandbox.site.settings import CONTROL_NAMESPACE

PROJECT = Path(__file__).resolve().parents[1]
POOL = "isa-platform"
ISA = str(Path(sys.executable).with_name("isa"))
# One worker serves all queues here. In a cluster each queue has its own worker and account.
QUEUES = ("default", "backups", "proofs", "restores", "rebuilds", "retention")
USER = DATABASE = "prefect"
OPERATOR = "isa"  # user name for the UI; Prefect's open-source server has one password and ignores the name
REQUEST_SECONDS = 30.0
START_SECONDS = 600  # migrations of an empty database: 10-30 s on two cores
PARTS = ("prefect-database", "prefect-server", "prefect-worker")
# The same as in the workers' image; deployments/worker/Containerfile explains them.
CLIENT = {
    "PREFECT_CLIENT_MAX_RETRIES": "8",
    "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500,504",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}
# Where the server keeps the slots of concurrency limits. With the default (memory), a restart of the server ends the
# runs that hold a slot.
LEASES = "prefect.server.concurrency.lease_storage.filesystem"


class ControlRoom:
    """The Prefect server and worker of a sandbox.

    Args:
        sandbox: the sandbox that its runs deploy to.
        tell: called with a line for each step.
    """

    def __init__(self, sandbox: Sandbox, tell: Callable[[str], None] = binaries.say) -> None:
        self._sandbox = sandbox
        self._tell = tell
        self._run = sandbox.directory / "run"
        self._data = sandbox.directory / "prefect-database"
        self.login_file = sandbox.directory / "prefect-login"

    @property
    def api(self) -> str:
        """Address of the API."""
        return f"{self.ui}/api"

    @property
    def ui(self) -> str:
        """Address of the UI."""
        return f"http://127.0.0.1:{self._sandbox.addresses.prefect}"

    @property
    def login(self) -> str:
        """`user:password` of the server, created once. The UI asks for it."""
        if not self.login_file.exists():
            write_atomic(self.login_file, f"{OPERATOR}:{secrets.token_urlsafe(18)}")
        return self.login_file.read_text(encoding="utf-8")

    @cached_property
    def http(self) -> httpx.Client:
        """An HTTP client for the API, with the login."""
        user, _, password = self.login.partition(":")
        return httpx.Client(base_url=self.api, auth=(user, password), timeout=REQUEST_SECONDS)

    def environ(self) -> dict[str, str]:
        """Environment of the worker and of clients of this server."""
        return {
            # without this shell's PREFECT_ variables: they may belong to another server
            **{k: v for k, v in self._sandbox.environ().items() if not k.startswith("PREFECT_")},
            "PREFECT_HOME": str(self._sandbox.directory / "prefect"),
            "PREFECT_API_URL": self.api,
            "PREFECT_UI_URL": self.ui,
            "PREFECT_API_AUTH_STRING": self.login,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            **CLIENT,
        }

    def up(self) -> dict[str, Any]:
        """Start every part that does not run.

        Raises:
            TemporaryError: a part did not start; the message has the end of its log.
        """
        started = time.monotonic()
        with locked(self._sandbox.directory / "control-room.lock"):
            self._publish(self.serve())
            self._introduce()
            worker = Daemon("prefect-worker", self._run)
            # Prefect's runners use a fixed folder in the temporary directory; another user may own it already
            temporary = self._sandbox.directory / "tmp"
            temporary.mkdir(exist_ok=True)
            worker.start(
                [ISA, "worker", "--name", "sandbox", *QUEUES],
                {
                    **self.environ(),
                    "TMPDIR": str(temporary),
                    "PREFECT_WORKER_QUERY_SECONDS": "2",  # a user is waiting; Prefect's default is 10
                },
                cwd=PROJECT,
            )
            self._await_worker(worker)
        self._tell(f"Prefect is up after {time.monotonic() - started:.1f} s: {self.ui}")
        return self.status()

    def serve(self) -> str:
        """Start database and server unless they run. Returns the database's URL when the server answers.

        Raises:
            TemporaryError: a part did not start; the message has the end of its log.
        """
        url = self._database()
        server = Daemon("prefect-server", self._run)
        port = str(self._sandbox.addresses.prefect)
        environ = {
            **self.environ(),
            "PREFECT_API_DATABASE_CONNECTION_URL": url,
            "PREFECT_SERVER_API_AUTH_STRING": self.login,
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
        }
        server.start(_prefect("server", "start", "--host", "127.0.0.1", "--port", port), environ)
        self._await_server(server)
        return url

    def down(self, *, purge: bool = False) -> None:
        """Stop worker, server and database; with `purge` delete the runs too."""
        Daemon("prefect-worker", self._run).stop(number=signal.SIGINT)
        Daemon("prefect-server", self._run).stop(number=signal.SIGINT)
        Daemon("prefect-database", self._run).stop(
            number=signal.SIGINT
        )  # PostgreSQL's fast shutdown
        if purge:
            leases = self._sandbox.directory / "prefect" / "concurrency_leases"
            for directory in (self._data, leases):
                shutil.rmtree(directory, ignore_errors=True)

    def daemon(self, part: str) -> Daemon:
        """One of the processes, for fault tests."""
        return Daemon(part, self._run)

    def status(self) -> dict[str, Any]:
        """Addresses and running processes."""
        running = {part: pid for part in PARTS if (pid := self.daemon(part).pid) is not None}
        if not running:  # do not allocate addresses for a sandbox that was never started
            return {"processes": {}}
        return {
            "prefect_api": self.api,
            "prefect_ui": self.ui,
            "prefect_login_file": str(self.login_file),
            "processes": running,
        }

    # ------------------------------------------------------------------ steps
    def _database(self) -> str:
        file = self._sandbox.directory / "prefect-database.json"
        if not file.exists():
            write_atomic(file, json.dumps({"password": secrets.token_urlsafe(24)}))
        password = json.loads(file.read_text(encoding="utf-8"))["password"]
        daemon = Daemon("prefect-database", self._run)
        self._data.parent.mkdir(parents=True, exist_ok=True)
        if postgres.initialise(self._data, USER, password):
            # stop processes that still use deleted data: the server creates its tables only at its start
            Daemon("prefect-server", self._run).stop(number=signal.SIGINT)
            daemon.stop(number=signal.SIGINT)
        port = self._sandbox.addresses.prefect_database
        daemon.start(
            postgres.unprivileged(
                str(postgres.programs() / "postgres"), "-D", str(self._data), "-p", str(port),
                "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200",
            ),
        )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with psycopg.connect(
                    host="127.0.0.1",
                    port=port,
                    user=USER,
                    password=password,
                    dbname="postgres",
                    autocommit=True,
                ) as connection:
                    query = "SELECT 1 FROM pg_database WHERE datname = %s"
                    if connection.execute(query, [DATABASE]).fetchone() is None:
                        connection.execute(f'CREATE DATABASE "{DATABASE}"')
                break
            except psycopg.OperationalError as exc:
                if time.monotonic() > deadline:
                    raise TemporaryError(
                        f"Prefect's database did not start: {exc}\n{daemon.tail()}"
                    ) from exc
                time.sleep(0.2)
        return f"postgresql+asyncpg://{USER}:{password}@127.0.0.1:{port}/{DATABASE}"

    def _publish(self, url: str) -> None:
        """Store the database's URL in the Secret that backups read, as in production."""
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {"name": "prefect-database", "namespace": CONTROL_NAMESPACE},
            "stringData": {"url": url},
        }
        self._sandbox.kube().apply(secret, manager="isa-sandbox")

    def _await_server(self, server: Daemon) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.http.get("/health", timeout=5).raise_for_status()
                return
            except httpx.HTTPError as exc:
                if time.monotonic() > deadline or server.pid is None:
                    raise TemporaryError(
                        f"the Prefect server did not start: {exc}\n{server.tail()}"
                    ) from exc
            time.sleep(0.3)

    def _await_worker(self, worker: Daemon) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            if worker.pid is None or time.monotonic() > deadline:
                raise TemporaryError(f"the Prefect worker did not start\n{worker.tail()}")
            try:
                answer = self.http.post(f"/work_pools/{POOL}/workers/filter", json={})
                workers = answer.raise_for_status().json()
            except httpx.HTTPError:  # the machine may be busy: try until the deadline
                workers = []
            if any(w["status"] == "ONLINE" for w in workers):
                return
            time.sleep(0.3)

    def _introduce(self) -> None:
        """Run `isa setup`, as an operator does."""
        setup = subprocess.run(
            [ISA, "setup"],
            cwd=PROJECT,
            env=self.environ(),
            capture_output=True,
            text=True,
            check=False,
        )
        if setup.returncode != 0:
            output = (setup.stdout + setup.stderr).strip()[-1500:]
            raise PermanentError(f"isa setup failed: {output}")


def _prefect(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "prefect", *arguments]
