"""A primary and a standby of PostgreSQL without a cluster around them, and a bucket in memory."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from archive.backup.cleanup_journal import CleanupJournal
from archive.backup.manifest import Capabilities, Manifest
from archive.backup.reader import SetReader
from archive.backup.writer import SetWriter
from archive.evidence.verdicts import Difference
from archive.object_store.entries import Entry
from archive.object_store.store import Missing
from archive.wal.bucket import WalReader
from archive.wal.point import BASE, Point
from components.access import Access, Endpoint
from components.base import BackupContent, Recovered, RunningScratch, Scratch
from components.postgresql import live, point, restore
from components.postgresql.backup import back_up
from components.postgresql.client import SUPERUSER
from components.postgresql.replacement.aside import statement
from config.sections.wal import PostgresqlWal
from operations.verify.comparison import compare
from sandbox.machine import postgres

PASSWORD = "of-nobody"
OPTIONS = (
    "fsync=off", "wal_level=replica", "max_wal_senders=6", "wal_keep_size=64MB", "hot_standby=on",
    "unix_socket_directories=", "shared_buffers=16MB", "max_connections=60", "max_prepared_transactions=4",
)  # fmt: skip
START_SECONDS = 60.0


class Bucket:
    """As much of `archive.object_store.store.Store` as a set needs, in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self._parts: dict[str, dict[int, bytes]] = {}

    def put(self, key: str, body: bytes, *, only_new: bool = False) -> None:
        self.objects[key] = bytes(body)

    def get(self, key: str) -> bytes:
        if key not in self.objects:
            raise Missing(key)
        return self.objects[key]

    def read(self, key: str) -> Iterator[bytes]:
        body = self.get(key)
        for start in range(0, len(body), 1 << 20):
            yield body[start : start + (1 << 20)]

    def list(self, prefix: str, after: str = "") -> list[Entry]:
        now = datetime.now(UTC)
        return [
            Entry(k, len(v), now)
            for k, v in self.objects.items()
            if k.startswith(prefix) and k > after
        ]

    def purge(self, key: str) -> None:
        self.objects.pop(key, None)

    def begin(self, key: str) -> str:
        upload = uuid.uuid4().hex
        self._parts[upload] = {}
        return upload

    def put_part(self, key: str, upload: str, number: int, body: bytes | bytearray) -> str:
        self._parts[upload][number] = bytes(body)
        return hashlib.md5(body).hexdigest()

    def complete(self, key: str, upload: str, etags: Any, size: int) -> None:
        parts = self._parts.pop(upload)
        self.objects[key] = b"".join(parts[number] for number in sorted(parts))

    def abort(self, key: str, upload: str) -> None:
        self._parts.pop(upload, None)


@dataclass
class Server:
    """One server process.

    Attributes:
        member: its name.
        data: its data directory.
        port: that it listens on.
        process: of it; None while it is down.
    """

    member: str
    data: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.member, "127.0.0.1", self.port, "127.0.0.1", "here")

    def start(self, *options: str) -> None:
        given = [f"port={self.port}", "listen_addresses=127.0.0.1", *OPTIONS, *options]
        words = [word for option in given for word in ("-c", option)]
        program = str(postgres.programs() / "postgres")
        argv = postgres.unprivileged(program, "-D", str(self.data), *words)
        with self.data.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.connect().close()
                return
            except psycopg.OperationalError:
                log_text = self.data.with_suffix(".log").read_text()
                assert self.process.poll() is None, log_text
                assert time.monotonic() < deadline, log_text
                time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)
            self.process = None

    def connect(self, database: str = SUPERUSER, user: str = SUPERUSER) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=user, password=PASSWORD, dbname=database,
            connect_timeout=5, autocommit=True,
        )  # fmt: skip

    def run(self, *statements: str, database: str = SUPERUSER) -> None:
        with self.connect(database) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def ask(self, query: str, database: str = SUPERUSER) -> Any:
        """The only value of the only row."""
        with self.connect(database) as connection:
            row = connection.execute(query.encode()).fetchone()
        return row[0] if row else None


@dataclass
class Pair:
    """The engine, as a backup and a restore see it.

    Attributes:
        primary: takes writes.
        standby: streams from it.
        directory: for everything.
        bucket: where sets lie.
        key: of whoever reads them.
    """

    primary: Server
    standby: Server
    directory: Path
    bucket: Bucket = field(default_factory=Bucket)
    key: Any = field(default_factory=pyrage.x25519.Identity.generate)
    members: int = 2

    @property
    def access(self) -> Access:
        nodes = [self.primary.endpoint, self.standby.endpoint]
        component = SimpleNamespace(members=2, max_lag_bytes=1 << 24, pgpool=False)
        backup = SimpleNamespace(
            postgresql=SimpleNamespace(full_every_days=1), stall_seconds=60,
            programs=[postgres.programs()], spool=self.directory,
        )  # fmt: skip
        settings = SimpleNamespace(
            components=SimpleNamespace(postgresql=component), backup=backup,
            wal=SimpleNamespace(postgresql=PostgresqlWal()),
        )  # fmt: skip
        made = SimpleNamespace(
            settings=settings, timeout_seconds=4.0, secret=lambda name, key: PASSWORD,
            endpoints=lambda *_: nodes[: self.members],
        )  # fmt: skip
        return cast(Access, made)

    def prove(self, reader: SetReader) -> tuple[Difference, ...]:
        """Restore a set in both ways that a proof has; what is not as it was."""
        with ExitStack() as stack:
            directory = self.directory / f"proof-{uuid.uuid4().hex[:6]}"
            at = {}
            for one in restore.scratch(self.access.settings, reader.manifest, ""):
                at[one.name] = stack.enter_context(self._scratch(one, reader, directory / one.name))
            restore.load(self.access, at, reader)
            reader.read_rest([BASE])
            found = restore.measure(self.access, at, reader)
        return compare(reader.manifest.fingerprint, found)

    @contextmanager
    def recovered(self, reader: SetReader, to: Point) -> Iterator[tuple[Endpoint, Recovered]]:
        """A scratch server that has recovered to a point, and what it says of itself."""
        said: list[Recovered] = []
        way = point.restore_to(to, said.append)
        (one,) = way.scratch(self.access.settings, reader.manifest, "")
        directory = self.directory / f"point-{uuid.uuid4().hex[:6]}"
        with self._scratch(one, reader, directory, to) as endpoint:
            way.measure(self.access, {one.name: endpoint}, reader)
            yield endpoint, said[0]

    @contextmanager
    def _scratch(
        self, one: Scratch, reader: SetReader, directory: Path, to: Point | None = None
    ) -> Iterator[Endpoint]:
        (directory / "config").mkdir(parents=True)
        for name, text in one.files.items():
            (directory / "config" / name).write_text(text.replace("/scratch", str(directory)))
        if one.placed:
            restore.place(reader, one.name, directory)
        if to is not None:
            point.place_wal(to, WalReader(cast(Any, self.bucket), str(self.key)), directory)

        def here(words: Iterable[str]) -> list[str]:
            moved = [w.replace("/scratch", str(directory)) for w in words]
            moved = [w.replace("/config", str(directory / "config")) for w in moved]
            return postgres.unprivileged(*moved)

        environ = {**os.environ, "PATH": f"{postgres.programs()}:{os.environ['PATH']}"}
        for step in one.steps:
            done = subprocess.run(here(step.command), env=environ, capture_output=True, text=True)
            assert done.returncode == 0, (step.name, done.stdout + done.stderr)
        port = free_port()
        argv = here([*one.command, "-c", f"port={port}", "-c", "listen_addresses=127.0.0.1"])
        log = directory / "log"
        with log.open("ab") as file:
            process = subprocess.Popen(argv, env=environ, stdout=file, stderr=file)
        endpoint = Endpoint(one.name, "127.0.0.1", port, "127.0.0.1", "here")
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                try:
                    assert restore.ask(self.access, endpoint).startswith("PostgreSQL")
                    break
                except psycopg.OperationalError:
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.05)
            yield endpoint
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)

    def restore(
        self, reader: SetReader, *units: str, within: Callable[[], None] = lambda: None
    ) -> tuple[list[str], tuple[Difference, ...]]:
        """Restore units into the live pair; what is told of it, and what is not as it was."""
        refused = live.LIVE.can_take(self.access, reader, units)
        assert refused == []
        with live.LIVE.fence(self.access, units):
            within()
            told = live.LIVE.replace(self.access, None, reader, units, CleanupJournal())
            return told, self.differences(reader, *units)

    def differences(self, reader: SetReader, *units: str) -> tuple[Difference, ...]:
        """What of units is not now as it was when they were backed up."""
        found = live.LIVE.measure(self.access, reader, units)
        return compare(live.LIVE.wanted(reader, units), {"": found})

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Have clients that connect to `postgres` again and again."""
        stop = threading.Event()

        def connect() -> None:
            while not stop.wait(0.01):
                with suppress(psycopg.Error), self.primary.connect() as connection:
                    connection.execute("SELECT pg_sleep(0.3)")

        clients = [threading.Thread(target=connect) for _ in range(3)]
        for client in clients:
            client.start()
        try:
            yield
        finally:
            stop.set()
            for client in clients:
                client.join()

    def switch_over(self) -> None:
        """Let the two change places."""
        self.primary.stop()
        self.standby.run("SELECT pg_promote()")
        (self.primary.data / "standby.signal").touch()
        conninfo = f"host=127.0.0.1 port={self.standby.port} user={SUPERUSER} password={PASSWORD}"
        with (self.primary.data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = '{conninfo}'\n")
        self.primary.start()
        self.primary, self.standby = self.standby, self.primary
        self.caught_up()

    def caught_up(self) -> None:
        """Wait until the standby has replayed all."""
        point = self.primary.ask("SELECT pg_current_wal_flush_lsn()::text")
        deadline = time.monotonic() + START_SECONDS
        while not self.standby.ask(f"SELECT pg_last_wal_replay_lsn() >= '{point}'::pg_lsn"):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def take_from_primary(self) -> SetReader:
        """Back up where there is no standby."""
        self.members = 1
        try:
            return self.take()
        finally:
            self.members = 2

    def drop_kept(self) -> None:
        """Drop databases that restores have put aside."""
        with self.primary.connect() as connection:
            rows = connection.execute(
                "SELECT datname FROM pg_database WHERE datname ~ '__(before|unfinished)_'"
            ).fetchall()
            for (name,) in rows:
                connection.execute(statement("DROP DATABASE {} (FORCE)", name))

    def take(self) -> SetReader:
        """Back up; the set to read from."""
        return self._stored(lambda writer: back_up(self.access, writer))

    def take_point(self, reader: SetReader, to: Point) -> SetReader:
        """Recover to a point and back up what the scratch server has; the set to read from."""
        with self.recovered(reader, to) as (endpoint, said):
            served = RunningScratch(self.access, {restore.FILES: endpoint})
            return self._stored(lambda writer: point.dump(served, writer, reader, to, said))

    def _stored(self, take: Callable[[SetWriter], BackupContent]) -> SetReader:
        begun = datetime.now(UTC)
        name = f"postgresql-{begun:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"
        prefix = f"test/postgresql/{name}/"
        recipients = (str(self.key.to_public()),)
        signer = Ed25519PrivateKey.generate()
        writer = SetWriter(cast(Any, self.bucket), prefix, recipients, signer, self.directory)
        taken = take(writer)
        manifest = Manifest(
            id=name, component="postgresql", environment="test", cluster="here", slot=name,
            begun=begun, ended=datetime.now(UTC), artefacts=writer.artefacts,
            outcome="partial" if taken.missing else "complete", recipients=recipients,
            store=Capabilities(conditional_put=True, checksums=True, versioning=False, object_lock=False),
            missing=taken.missing, not_covered=taken.not_covered, engine=taken.engine, tools=taken.tools,
            topology=taken.topology, consistency=taken.consistency, fingerprint=taken.fingerprint,
        )  # fmt: skip
        return SetReader(cast(Any, self.bucket), manifest, str(self.key))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A primary with a standby that streams from it."""
    directory = tmp_path_factory.mktemp("postgresql")
    directory.chmod(0o755)
    primary = Server("node-0", directory / "primary", free_port())
    standby = Server("node-1", directory / "standby", free_port())
    made = Pair(primary, standby, directory)
    try:
        postgres.initialise(primary.data, SUPERUSER, PASSWORD)
        with (primary.data / "pg_hba.conf").open("a") as rules:
            rules.write(
                "host all all 127.0.0.0/8 scram-sha-256\nhost replication all 127.0.0.0/8 scram-sha-256\n"
            )
        primary.start()
        primary.run("CREATE ROLE isa LOGIN PASSWORD 'of-nobody'", "CREATE DATABASE isa OWNER isa")
        primary.run("GRANT pg_monitor TO isa")
        program = str(postgres.programs() / "pg_basebackup")
        source = f"host=127.0.0.1 port={primary.port} user={SUPERUSER}"
        words = ("-d", source, "-D", str(standby.data), "-R", "-X", "stream", "-c", "fast")
        environ = {**os.environ, "PGPASSWORD": PASSWORD}
        subprocess.run(postgres.unprivileged(program, *words), env=environ, check=True)
        standby.start()
        yield made
    finally:
        standby.stop()
        primary.stop()
