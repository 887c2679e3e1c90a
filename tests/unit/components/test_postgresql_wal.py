"""What is stored of the WAL in a spool, through restarts, failovers and outages of the store."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from archive.wal.bucket import segment_name
from archive.wal.coverage import Coverage, Wal
from archive.wal.names import TimelineHistory, WalObject
from components.postgresql.wal.heartbeat import Heartbeats
from components.postgresql.wal.shipper import Shipper, last_switch, stored_position
from components.postgresql.wal.spool import WalSpool
from errors import PermanentError, TemporaryError
from tests.unit.archive.wal.history import NOON, SEGMENT, SYSTEM, Cluster

HISTORY = b"1\t0/C8\tno recovery target specified\n"  # timeline 2 left timeline 1 at 200


class Writer:
    """Notes what is stored."""

    def __init__(self) -> None:
        self.objects: list[WalObject] = []
        self.histories: list[TimelineHistory] = []
        self.fails_at = 0  # this call fails
        self.stores_then = False  # whether the answer alone is lost
        self._calls = 0

    def put(self, one: WalObject | TimelineHistory, plain: bytes) -> str:
        self._calls += 1
        if self._calls == self.fails_at:
            if self.stores_then and isinstance(one, WalObject):
                self.objects.append(one)
            raise TemporaryError("the store is away")
        if isinstance(one, WalObject):
            assert len(plain) == one.size
            self.objects.append(one)
        else:
            self.histories.append(one)
        return "key"

    @property
    def coverage(self) -> Coverage:
        return Wal(self.objects, self.histories).coverage


class Server:
    """A cluster whose pg_receivewal writes into a spool."""

    def __init__(self, directory: Path) -> None:
        self.cluster = Cluster()
        self.cluster.write(6 * SEGMENT)
        self.spool = WalSpool(directory, SEGMENT)
        self.writer = Writer()
        self.written: tuple[int, int] | None = None

    def receive(self, timeline: int, end: int, begin: int = 0) -> None:
        """Have WAL up to an LSN in the spool."""
        wal = self.cluster.wal[timeline]
        for start in range(begin, end, SEGMENT):
            name = segment_name(timeline, start, SEGMENT)
            partial = self.spool.directory / f"{name}.partial"
            partial.unlink(missing_ok=True)
            if start + SEGMENT <= end:
                (self.spool.directory / name).write_bytes(wal[start : start + SEGMENT])
            else:
                partial.write_bytes(wal[start:end].ljust(SEGMENT, b"\0"))
        self.written = (timeline, end)

    def shipper(self, *, new: bool = False) -> Shipper:
        """One that begins with what is stored."""
        stored = None
        if not new:
            stored = stored_position(self.writer.coverage.lines[0].objects, SEGMENT)
        return Shipper(
            cast(Any, self.writer), self.spool, "test", SYSTEM, stored, (1, 0), lambda: NOON
        )

    def promote(self) -> None:
        """Timeline 2 leaves timeline 1 at 200."""
        self.cluster.promote(1, 200, 2)
        self.cluster.histories.clear()
        self.cluster.write(200, 2)
        (self.spool.directory / "00000002.history").write_bytes(HISTORY)


def unknown(_: int) -> None:
    return None


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def test_a_growing_segment_is_stored_in_pieces_and_then_as_a_whole(server: Server) -> None:
    shipper = server.shipper(new=True)
    for end in (10, 40, 70, 150):
        server.receive(1, end, shipper.segment_start)
        shipper.ship(server.written, unknown)
    assert [(one.start, one.end) for one in server.writer.objects] == [
        (0, 10), (10, 40), (0, 64), (64, 70), (64, 128), (128, 150),
    ]  # fmt: skip
    assert server.writer.coverage.complete
    assert [one.start for one in server.spool.files()] == [128]


def test_nothing_new_stores_nothing(server: Server) -> None:
    shipper = server.shipper(new=True)
    server.receive(1, 40)
    for _ in range(3):
        shipper.ship(server.written, unknown)
    assert len(server.writer.objects) == 1


def test_what_the_store_did_not_take_goes_with_the_next_call(server: Server) -> None:
    shipper = server.shipper(new=True)
    server.receive(1, 40)
    server.writer.fails_at = 1
    with pytest.raises(TemporaryError):
        shipper.ship(server.written, unknown)
    server.receive(1, 200)
    shipper.ship(server.written, unknown)
    assert server.writer.coverage.complete
    assert shipper.lsn == 200


@pytest.mark.parametrize("call", range(1, 8))
@pytest.mark.parametrize("stored", [False, True], ids=["not stored", "stored, but not known"])
def test_a_kill_at_any_object_leaves_no_gap(server: Server, call: int, stored: bool) -> None:
    server.writer.fails_at, server.writer.stores_then = call, stored
    shipper = server.shipper(new=True)
    for end in (10, 40, 70, 150, 200, 230):
        server.receive(1, end, shipper.segment_start)
        try:
            shipper.ship(server.written, unknown)
        except TemporaryError:  # another process goes on
            shipper = server.shipper(new=not server.writer.objects)
            shipper.ship(server.written, unknown)
    assert server.writer.coverage.complete
    assert server.writer.coverage.lines[0].end == 230


def test_a_new_machine_goes_on_behind_the_stored_part_of_a_segment(server: Server) -> None:
    server.receive(1, 150)
    server.shipper(new=True).ship(server.written, unknown)
    server.spool.clear()
    shipper = server.shipper()
    server.spool.begin_at(shipper.timeline, shipper.segment_start)
    server.receive(1, 140, 128)  # the server sends the segment again, from its start
    shipper.ship(server.written, unknown)
    server.receive(1, 180, 128)
    shipper.ship(server.written, unknown)
    assert [(one.start, one.end) for one in server.writer.objects[-2:]] == [(128, 150), (150, 180)]
    assert server.writer.coverage.complete


def test_wal_of_another_history_is_reported_and_continues_nothing(server: Server) -> None:
    server.receive(1, 150)
    server.shipper(new=True).ship(server.written, unknown)
    server.cluster.wal[1] = server.cluster.wal[1][:140] + bytes(100)
    shipper = server.shipper()
    server.receive(1, 180, 128)
    shipper.ship(server.written, unknown)
    assert "another history" in shipper.diverged
    assert not any(one.start == 150 for one in server.writer.objects)


def test_a_failover_is_followed_with_its_history_file_first(server: Server) -> None:
    shipper = server.shipper(new=True)
    server.receive(1, 210)
    shipper.ship(server.written, lambda lsn: NOON + timedelta(seconds=lsn))
    server.promote()
    server.receive(2, 250, 192)
    shipper.ship(server.written, unknown)
    assert server.writer.histories[0].switch == 200
    assert server.writer.coverage.complete
    assert server.writer.coverage.lines[0].timeline == 2
    # commits of the old timeline behind the switch are gone: nothing is promised of their time
    assert server.writer.objects[-1].covers is None
    assert [one.timeline for one in server.spool.files()] == [2]


def test_a_new_timeline_without_its_history_file_is_not_stored_yet(server: Server) -> None:
    shipper = server.shipper(new=True)
    server.receive(1, 195)
    shipper.ship(server.written, unknown)
    server.promote()
    (server.spool.directory / "00000002.history").unlink()
    server.receive(2, 250, 192)
    shipper.ship(server.written, unknown)
    assert {one.timeline for one in server.writer.objects} == {1}


def test_an_object_covers_the_newest_heartbeat_at_or_below_its_end(server: Server) -> None:
    beats = Heartbeats()
    for lsn in (5, 30, 60):
        beats.add(lsn, NOON + timedelta(seconds=lsn))
    shipper = server.shipper(new=True)
    for end in (4, 40, 50):
        server.receive(1, end)
        shipper.ship(server.written, beats.covered)
    covers = [one.covers for one in server.writer.objects]
    assert covers == [None, NOON + timedelta(seconds=30), NOON + timedelta(seconds=30)]
    beats.forget()
    assert beats.covered(100) is None


def test_a_spool_that_lacks_the_next_segment_begins_with_it_again(server: Server) -> None:
    server.receive(1, 300, 128)
    server.spool.begin_at(1, 64)
    assert [(one.start, one.complete) for one in server.spool.files()] == [(64, False)]


def test_a_spool_that_has_the_next_segment_keeps_it_and_drops_what_is_stored(
    server: Server,
) -> None:
    server.receive(1, 300)
    server.spool.begin_at(1, 128)
    assert [one.start for one in server.spool.files()] == [128, 192, 256]


@pytest.mark.parametrize("text", [b"", b"nonsense", b"1\tx\ty"])
def test_a_timeline_history_file_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(PermanentError, match="history file"):
        last_switch(text)


def test_the_last_line_of_a_history_file_counts() -> None:
    assert last_switch(b"# x\n1\t0/10\tr\n\n2\t1/20\tr\n") == (2, 0x1_00000020)
