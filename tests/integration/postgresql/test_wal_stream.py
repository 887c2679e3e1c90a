"""WAL is followed into the bucket from a real primary: restarts, failover, an outage of the store, recovery."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from archive.signing import public_half
from archive.wal.bucket import WalListing, WalReader, WalWriter, list_wal
from archive.wal.coverage import Coverage
from archive.wal.names import lsn_number, lsn_text
from components.postgresql.wal.slots import SLOT
from components.postgresql.wal.stream import WalStream
from config.sections.backups import BackupSigner
from errors import TemporaryError
from sandbox.machine import postgres

from .conftest import PASSWORD, Bucket, Pair, free_port

KEY = Ed25519PrivateKey.generate()
SIGNERS = (BackupSigner(key=public_half(KEY)),)
SEGMENT = 16 << 20
WAIT_SECONDS = 120.0
LSN = "SELECT pg_current_wal_flush_lsn()::text"


class Away(Bucket):
    """A bucket that may be away."""

    away = False

    def put(self, key: str, body: bytes, *, only_new: bool = False) -> None:
        if self.away:
            raise TemporaryError("the store is away")
        super().put(key, body)

    def get(self, key: str, limit: int = 0) -> bytes:
        return super().get(key)


class Streaming:
    """A stream in a thread of its own, begun again after each fault as the service does."""

    def __init__(self, pair: Pair, bucket: Bucket, spool: Path, spool_bytes: int = 1 << 30) -> None:
        self._pair, self._end = pair, threading.Event()
        self.faults: list[str] = []
        writer = WalWriter(cast(Any, bucket), [str(pair.key.to_public())], KEY)
        self.stream = WalStream(
            pair.access, cast(Any, bucket), writer, "test", SIGNERS, spool, spool_bytes, self._end.is_set
        )  # fmt: skip
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Streaming:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                self.stream.follow()
            except (TemporaryError, psycopg.Error, OSError) as exc:  # as the service does
                self.faults.append(f"{exc} {getattr(exc, 'said', '')}")
                self._end.wait(0.1)

    def stores(self, lsn: str) -> None:
        """Wait until an LSN is stored."""
        until(
            lambda: self.stream.status.stored_lsn >= lsn_number(lsn),
            lambda: f"{lsn} is not stored: {self.stream.status} {self.faults[-3:]}",
        )

    def covers(self, at: datetime) -> None:
        """Wait until each commit until a time is stored."""
        until(lambda: (self.stream.status.covers or at) > at, self.faults.__str__)


def until(condition: Callable[[], bool], words: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, words()
        time.sleep(0.02)


def listing(bucket: Bucket) -> WalListing:
    found = list_wal(cast(Any, bucket), "test", SIGNERS)
    assert found.refused == {}
    return found


def coverage(bucket: Bucket) -> Coverage:
    found = listing(bucket)
    (system,) = found.objects
    return found.of(system).coverage


def write(pair: Pair, rows: int = 10) -> str:
    """Commit rows; the LSN behind them."""
    pair.primary.run(
        f"INSERT INTO journal SELECT repeat('x', 1000) FROM generate_series(1, {rows})"
    )
    return str(pair.primary.ask(LSN))


@pytest.fixture(scope="module")
def table(pair: Pair) -> Pair:
    pair.primary.run("CREATE TABLE journal (line text)")
    pair.caught_up()
    return pair


@contextmanager
def recovered(
    pair: Pair, files: Path, wal: Path, *settings: str
) -> Iterator[psycopg.Connection[Any]]:
    """A server that recovers a base backup with stored WAL to a target, and is promoted there."""
    (files / "recovery.signal").touch()
    port = free_port()
    options = [
        f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off",
        f"restore_command=cp {wal}/%f %p", "recovery_target_action=promote", "primary_conninfo=",
        "max_connections=60", "max_prepared_transactions=4", "max_wal_senders=6", *settings,
    ]  # fmt: skip
    words = [word for option in options for word in ("-c", option)]
    argv = postgres.unprivileged(str(postgres.programs() / "postgres"), "-D", str(files), *words)
    log = files.with_suffix(".log")
    with log.open("ab") as file:
        process = subprocess.Popen(argv, stdout=file, stderr=file)
    connections: list[psycopg.Connection[Any]] = []

    def promoted() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            connections.append(
                psycopg.connect(
                    host="127.0.0.1", port=port, user="postgres", password=PASSWORD, dbname="postgres",
                    autocommit=True,
                )
            )  # fmt: skip
        except psycopg.OperationalError:
            return False
        return connections[-1].execute("SELECT pg_is_in_recovery()").fetchone() == (False,)

    try:
        until(promoted, log.read_text)
        yield connections[-1]
    finally:
        for connection in connections:
            connection.close()
        process.send_signal(signal.SIGINT)
        process.wait(60)


def base_backup(pair: Pair, directory: Path) -> tuple[int, int]:
    """Take a base backup of the primary; its timeline and the LSN of its end."""
    program = str(postgres.programs() / "pg_basebackup")
    source = f"host=127.0.0.1 port={pair.primary.port} user=postgres"
    words = ("-d", source, "-D", str(directory), "-X", "fetch", "-c", "fast")
    environ = {**os.environ, "PGPASSWORD": PASSWORD}
    subprocess.run(postgres.unprivileged(program, *words), env=environ, check=True)
    text = (directory / "backup_manifest").read_text()
    end = text.rpartition('"End-LSN": "')[2].partition('"')[0]
    timeline = text.rpartition('"Timeline": ')[2].partition(",")[0]
    return int(timeline), lsn_number(end)


def test_a_restart_on_a_new_machine_goes_on_without_a_gap(table: Pair, tmp_path: Path) -> None:
    bucket = Away()
    with Streaming(table, bucket, tmp_path / "spool") as streaming:
        for _ in range(3):
            streaming.stores(write(table))
    with Streaming(table, bucket, tmp_path / "another") as streaming:
        streaming.stores(write(table))
        table.primary.run("SELECT pg_switch_wal()")
        streaming.stores(write(table, 20_000))
        status = streaming.stream.status
        # the server keeps no more than what is not stored as a whole segment
        of_ours = f"FROM pg_replication_slots WHERE slot_name = '{SLOT}'"
        held = f"SELECT (pg_current_wal_lsn() - restart_lsn)::bigint {of_ours}"
        until(lambda: table.primary.ask(held) < 2 * SEGMENT)
        assert (
            table.standby.ask(
                f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{SLOT}'"
            )
            == 1
        )
    found = coverage(bucket)
    assert found.complete, found
    assert status.recovery_point_seconds is not None
    # complete segments have left the spool
    (system,) = (tmp_path / "another").iterdir()
    assert len(list(system.iterdir())) == 1


def test_an_outage_of_the_store_is_waited_out_and_a_full_spool_stops_the_receiver(
    table: Pair, tmp_path: Path
) -> None:
    bucket = Away()
    with Streaming(table, bucket, tmp_path, spool_bytes=3 * SEGMENT) as streaming:
        streaming.stores(write(table))
        bucket.away = True
        end = write(table, 80_000)  # more than the spool may hold
        until(lambda: any("spool" in fault for fault in streaming.faults), streaming.faults.__str__)
        assert "the store is away" in streaming.stream.status.store
        assert table.primary.ask("SELECT 1") == 1
        bucket.away = False
        streaming.stores(end)
    assert coverage(bucket).complete


def test_wal_that_the_server_has_removed_is_a_named_gap(table: Pair, tmp_path: Path) -> None:
    bucket = Away()
    with Streaming(table, bucket, tmp_path) as streaming:
        streaming.stores(write(table))
    for node in (table.primary, table.standby):
        node.run(f"SELECT pg_drop_replication_slot('{SLOT}')")
    for _ in range(8):  # beyond wal_keep_size
        write(table, 15_000)
        table.primary.run("SELECT pg_switch_wal()", "CHECKPOINT")
    with Streaming(table, bucket, tmp_path) as streaming:
        streaming.stores(write(table))
        assert "no longer has the WAL" in streaming.stream.status.begun_again
    (gap,) = coverage(bucket).gaps
    assert "is missing" in gap.words


def test_a_base_backup_is_recovered_to_an_lsn_and_to_a_time_across_a_failover(
    table: Pair, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    bucket = Away()
    with Streaming(table, bucket, tmp_path / "spool") as streaming:
        streaming.stores(write(table))
        timeline, end = base_backup(table, tmp_path / "first")
        table.primary.run("CREATE TABLE points (name text)", "INSERT INTO points VALUES ('a')")
        early = str(table.primary.ask(LSN))
        streaming.stores(write(table))
        table.switch_over()
        table.primary.run("INSERT INTO points VALUES ('b')")
        late = table.primary.ask("SELECT clock_timestamp()")
        streaming.covers(late)
        table.primary.run("INSERT INTO points VALUES ('c')")
        streaming.stores(str(table.primary.ask(LSN)))
    found = listing(bucket)
    (system,) = found.objects
    wal = found.of(system)
    assert wal.coverage.complete, [gap.words for gap in wal.coverage.gaps]
    line = wal.from_base(timeline, end, SEGMENT)
    assert line.timeline > timeline
    subprocess.run(["cp", "-a", tmp_path / "first", tmp_path / "second"], check=True)
    reader = WalReader(cast(Any, bucket), str(table.key))
    points = "SELECT string_agg(name, '' ORDER BY name) FROM points"
    for name, part, target, expected in (
        ("first", line.up_to_lsn(lsn_number(early)), f"recovery_target_lsn={early}", "a"),
        ("second", line.up_to_time(late), f"recovery_target_time={late.isoformat()}", "ab"),
    ):
        files = tmp_path / f"wal-{name}"
        files.mkdir()
        reader.save(part, found.histories[system], SEGMENT, files)
        with recovered(table, tmp_path / name, files, target) as connection:
            assert connection.execute(points).fetchone() == (expected,), lsn_text(part.end)
