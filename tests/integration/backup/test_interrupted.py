"""What goes wrong in the midst of a backup leaves no set, and the engine as it was; the next run makes one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from archive.backup.reader import SetReader
from archive.backup.writer import SetWriter
from archive.retention.garbage import collect_garbage, find_garbage
from components.nats.streams import snapshot as nats_snapshot
from components.postgresql.backup import back_up as back_up_postgresql
from components.postgresql.base_backup import source
from components.postgresql.base_backup.replay import paused_replay
from components.postgresql.client import PORT, STATEFULSET, connect_long, node_status
from components.qdrant import backup as qdrant
from components.qdrant.client import get, replicas
from components.qdrant.collections.snapshot import Download, Shard
from components.qdrant.peers import all_peers
from components.redis import backup as redis_backup
from components.redis.client import connect as connect_redis
from components.redis.client import read_view
from errors import TemporaryError
from operations.backup.prerequisites import read_worker_key

from .conftest import ISA, Backups, until

pytestmark = pytest.mark.integration


def writer_of(backups: Backups, prefix: str, **more: Any) -> SetWriter:
    settings = backups.environment.settings.backup
    return SetWriter(
        backups.environment.store,
        f"sandbox/{prefix}/",
        settings.age_recipients,
        read_worker_key(backups.environment),
        settings.spool,
        **more,
    )


def sets(backups: Backups, component: str) -> set[str]:
    return {one.id for one in backups.environment.catalogue([component]).sets}


# ---------------------------------------------------------------------- PostgreSQL
def paused(backups: Backups) -> list[str]:
    """Standbys whose replay stands still."""
    found = []
    with backups.access() as access:
        for node in access.endpoints(STATEFULSET, 3, PORT):
            with connect_long(access, node) as connection:
                row = connection.execute(
                    "SELECT pg_is_in_recovery() AND pg_is_wal_replay_paused()"
                ).fetchone()
                if row is not None and row[0]:
                    found.append(node.member)
    return found


def test_a_standby_that_lacks_what_was_committed_before_is_not_backed_up(
    backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "CATCH_UP_SECONDS", 1.0)
    with backups.access() as access, ExitStack() as hands:
        nodes = access.endpoints(STATEFULSET, 3, PORT)
        by_role = {node_status(access, node).standby: node for node in nodes}
        primary = by_role[False]
        for node in nodes:
            if node is not primary:
                hand = hands.enter_context(connect_long(access, node))
                hand.execute("SELECT pg_wal_replay_pause()")
                hands.callback(hand.execute, "SELECT pg_wal_replay_resume()")
        with connect_long(access, primary, "isa", "search_path=public") as client:
            client.execute("CREATE TABLE just_committed (n int)")
        try:
            assert source.choose_source(access).node.member == primary.member
            hand.execute("SELECT pg_wal_replay_resume()")
            monkeypatch.setattr(source, "CATCH_UP_SECONDS", 60.0)
            assert source.choose_source(access).node_status.standby
        finally:
            with connect_long(access, primary, "isa", "search_path=public") as client:
                client.execute("DROP TABLE just_committed")


def test_a_standby_goes_on_replaying_when_the_backup_is_killed(backups: Backups) -> None:
    before = sets(backups, "postgresql")
    running = subprocess.Popen(
        [ISA, "backup", "postgresql", "--local"],
        env=backups.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until(lambda: bool(paused(backups)), "a standby pauses")
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    until(lambda: not paused(backups), "all standbys replay again")
    assert sets(backups, "postgresql") == before
    assert backups.isa("backup", "postgresql", "--local")["state"] == "completed"


def test_a_replay_that_somebody_resumed_in_the_midst_makes_no_set(backups: Backups) -> None:
    before = sets(backups, "postgresql")
    with backups.access() as access:
        nodes = access.endpoints(STATEFULSET, 3, PORT)
        primary = next(n for n in nodes if not node_status(access, n).standby)
        standby = next(n for n in nodes if node_status(access, n).standby)
        with (
            pytest.raises(TemporaryError, match="did not stay paused"),
            paused_replay(access, standby) as pause,
            connect_long(access, standby) as other,
            connect_long(access, primary) as writer,
        ):
            time.sleep(10)  # by itself nothing resumes it
            assert paused(backups) == [standby.member]
            writer.execute("SELECT pg_logical_emit_message(false, 'isa', 'moves the LSN')")
            writer.execute("SELECT pg_switch_wal()")
            other.execute("SELECT pg_wal_replay_resume()")
            moved = f"SELECT pg_last_wal_replay_lsn() > '{pause.point}'".encode()
            until(lambda: other.execute(moved).fetchone() == (True,), "the replay goes on")
    assert paused(backups) == []
    assert sets(backups, "postgresql") == before


def test_the_files_and_the_digests_are_of_one_moment_while_clients_write(backups: Backups) -> None:
    """Counts under load: the fingerprint's equals the dump's, row for row."""
    stop = threading.Event()
    with backups.access() as access:
        primary = next(
            n for n in access.endpoints(STATEFULSET, 3, PORT) if not node_status(access, n).standby
        )
        with connect_long(access, primary, "isa", "search_path=public") as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS busy (n bigserial PRIMARY KEY, at timestamptz DEFAULT now())"
            )

        def write() -> None:
            with connect_long(access, primary, "isa", "search_path=public") as connection:
                while not stop.is_set():
                    connection.execute("INSERT INTO busy DEFAULT VALUES")

        clients = threading.Thread(target=write)
        clients.start()
        try:
            backups.isa("backup", "postgresql", "--local")
        finally:
            stop.set()
            clients.join()
            with connect_long(access, primary, "isa", "search_path=public") as connection:
                connection.execute("DROP TABLE busy")
    manifest = backups.manifest("postgresql")
    measure = next(m for m in manifest.fingerprint if m.item == "table public.busy")
    listing = subprocess.run(
        [
            str(backups.environment.settings.backup.programs[0] / "pg_restore"),
            "-a",
            "-t",
            "busy",
            "-f",
            "-",
        ],
        input=backups.fetch(manifest, "databases/isa.dump"),
        capture_output=True,
        check=True,
    ).stdout.decode()
    rows = [
        line for line in listing.partition("FROM stdin;\n")[2].splitlines() if line[:1].isdigit()
    ]
    assert measure.count == len(rows) > 0


@pytest.mark.parametrize("lost", ["source", "primary"])
def test_a_node_that_is_lost_in_the_midst_leaves_no_set_or_a_whole_one(
    lost: str, backups: Backups
) -> None:
    """The node that is read fails it loudly; a failover may promote that node, or leave it be."""
    before = sets(backups, "postgresql")
    with backups.access() as access:
        nodes = access.endpoints(STATEFULSET, 3, PORT)
        primary = next(n.member for n in nodes if not node_status(access, n).standby)
    running = subprocess.Popen(
        [ISA, "backup", "postgresql", "--local"],
        env={**backups.environ, "ISA_BACKUP__ATTEMPTS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    held: list[str] = []

    def under_way() -> bool:
        held[:] = paused(backups)
        return bool(held)

    until(under_way, "the backup is under way")
    backups.live.kill(held[0] if lost == "source" else primary)
    code = running.wait(timeout=180)
    backups.live.heal()
    backups.live.await_state("ready")
    made = [
        one for one in backups.environment.catalogue(["postgresql"]).sets if one.id not in before
    ]
    assert (code == 0) == bool(made)
    assert lost == "primary" or not made
    for one in made:
        SetReader(backups.environment.store, one, backups.identity).read_rest()
    assert backups.isa("backup", "postgresql", "--local")["state"] == "completed"


def test_without_a_fit_standby_the_primary_is_taken(
    backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "_behind", lambda access, node: None)
    with backups.access() as access:
        taken = back_up_postgresql(access, writer_of(backups, "test/primary"))
    assert taken.topology["role"] == "primary"
    assert taken.consistency[0].point.startswith("LSN ")


def test_a_cancelled_backup_leaves_no_set_no_upload_and_no_paused_replay(backups: Backups) -> None:
    """What it stored stays: its key may not delete, and the sweep of retention does.

    So is an upload whose end the store did not acknowledge.
    """
    store, sets = backups.environment.store, backups.environment.catalogue(["postgresql"]).sets
    running = subprocess.Popen(
        [ISA, "backup", "postgresql", "--local"],
        env=backups.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: bool(paused(backups)), "the backup is under way")
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 130
    time.sleep(0.5)
    assert backups.environment.catalogue(["postgresql"]).sets == sets
    assert paused(backups) == []
    collect_garbage(store, find_garbage(store, "sandbox", datetime.now(UTC) + timedelta(hours=1)))
    assert store.pending("sandbox/postgresql/") == ()
    kept = tuple(one.prefix for one in sets)
    assert all(entry.key.startswith(kept) for entry in store.list("sandbox/postgresql/"))


# ---------------------------------------------------------------------- Redis
def test_slots_that_move_put_the_backup_off(backups: Backups) -> None:
    with backups.access() as access:
        members = {m.member: m for m in access.endpoints("redis-cluster", 6, 6379)}
        views = {n: read_view(access, m) for n, m in members.items()}
        slots = redis_backup._slots(views)
        by_ip = {m.pod_ip: m for m in members.values()}
        source = by_ip[slots[0].rpartition(":")[0]]
        target = by_ip[slots[16383].rpartition(":")[0]]
        with connect_redis(access, source) as one, connect_redis(access, target) as other:
            names = one.execute_command("CLUSTER MYID"), other.execute_command("CLUSTER MYID")
            other.execute_command("CLUSTER", "SETSLOT", 0, "IMPORTING", names[0])
            one.execute_command("CLUSTER", "SETSLOT", 0, "MIGRATING", names[1])
            try:
                with pytest.raises(TemporaryError, match=r"slot 0 is migrating.*--cluster fix"):
                    redis_backup.back_up(access, writer_of(backups, "test/moving"))
            finally:
                one.execute_command("CLUSTER", "SETSLOT", 0, "STABLE")
                other.execute_command("CLUSTER", "SETSLOT", 0, "STABLE")
        taken = redis_backup.back_up(access, writer_of(backups, "test/still"))
    assert len(taken.consistency) == 3


def test_slots_that_changed_hands_meanwhile_put_the_backup_off(
    backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    real = redis_backup._slots

    def changing(views: Any) -> dict[int, str]:
        looks.append(1)
        found = real(views)
        return {**found, 0: f"127.0.0.1:{len(looks)}"} if len(looks) > 3 else found

    monkeypatch.setattr(redis_backup, "_slots", changing)
    with backups.access() as access, pytest.raises(TemporaryError, match="changed their masters"):
        redis_backup.back_up(access, writer_of(backups, "test/changed"))


# ---------------------------------------------------------------------- NATS
def test_a_snapshot_that_is_not_acknowledged_fails(
    backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server gives up 5 s after the last acknowledgement, and says so; small windows make it wait for one."""
    from components.nats.backup import back_up

    monkeypatch.setattr(nats_snapshot, "CHUNK_BYTES", 1024)
    monkeypatch.setattr(nats_snapshot, "WINDOW_BYTES", 2048)
    real = nats_snapshot.Snapshot._next

    async def deaf(self: Any) -> Any:
        publish = self._client.publish

        async def nothing(*_: Any) -> None:
            return

        self._client.publish = nothing
        try:
            return await real(self)
        finally:
            self._client.publish = publish

    monkeypatch.setattr(nats_snapshot.Snapshot, "_next", deaf)
    with backups.access() as access, pytest.raises(TemporaryError, match="snapshot of"):
        back_up(access, writer_of(backups, "test/deaf"))


# ---------------------------------------------------------------------- Qdrant
def test_a_short_snapshot_is_found(backups: Backups, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Download.__iter__

    def short(self: Download) -> Iterator[bytes]:
        made = self._made
        object.__setattr__(made, "size", made.size - 512)
        yield from real(self)

    monkeypatch.setattr(Download, "__iter__", short)
    monkeypatch.setattr(qdrant, "PAUSES_SECONDS", (0.0, 0.1))  # two minutes in all otherwise
    with backups.access() as access, pytest.raises(TemporaryError, match="is truncated"):
        qdrant.back_up(access, writer_of(backups, "test/short"))


def test_nothing_stays_on_the_peers(backups: Backups) -> None:
    with backups.access() as access:
        qdrant.back_up(access, writer_of(backups, "test/clean"))
        assert _snapshots(access) == []


def test_what_a_killed_run_left_on_a_peer_is_removed_by_the_next(backups: Backups) -> None:
    running = subprocess.Popen(
        [sys.executable, "-c", KILLED],
        env={**backups.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert running.wait(60) == -signal.SIGKILL
    with backups.access() as access:
        assert len(_snapshots(access)) == 1
    assert backups.isa("backup", "qdrant", "--local")["state"] == "completed"
    with backups.access() as access:
        assert _snapshots(access) == []


# Dies between the making of a snapshot and its download.
KILLED = """
import os, signal
from components.qdrant import backup
from components.qdrant.collections.snapshot import Download
Download.__iter__ = lambda self: os.kill(os.getpid(), signal.SIGKILL)
backup.PARALLEL_SHARDS = 1
backup.open_chain = lambda *_, **__: ()  # a full one: of an unchanged collection no snapshot is made
import sys
sys.argv = ["isa", "backup", "qdrant", "--local", "--env", "sandbox"]
from cli.main import main
main()
"""


def _snapshots(access: Any) -> list[Any]:
    peers = all_peers(access).by_id
    return [
        made
        for identity, peer in peers.items()
        for copy in replicas(access, peer, "articles")
        if str(copy["peer_id"]) == identity
        for made in get(access, peer, Shard("articles", int(copy["shard_id"]), peer).path)
    ]
