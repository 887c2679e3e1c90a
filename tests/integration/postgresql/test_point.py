"""Recovery to a point between two backups on real servers: it stops at the point, or says that it does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from archive.backup.reader import Damaged, SetReader
from archive.wal.coverage import Line, NotCovered
from archive.wal.names import lsn_number
from archive.wal.point import Base, Point, bases_of, choose_point, stored_wal
from archive.wal.target import RecoveryTarget
from components.postgresql.restore import connect_scratch

from .conftest import Pair
from .test_wal_stream import LSN, SIGNERS, Away, Streaming, write

MARKS = "SELECT string_agg(name, '' ORDER BY name) FROM public.marks"


@dataclass
class Written:
    """A base backup and what was written after it.

    Attributes:
        reader: of the backup.
        times: mark → a time of the primary's clock after its commit and before the next one's.
        lsns: mark → LSN behind it.
    """

    pair: Pair
    reader: SetReader
    times: dict[str, datetime]
    lsns: dict[str, str]

    @property
    def bases(self) -> tuple[Base, ...]:
        return bases_of([self.reader.manifest])

    def point(self, **target: Any) -> Point:
        wal = stored_wal(cast(Any, self.pair.bucket), "test", SIGNERS)
        return choose_point(self.bases, wal, RecoveryTarget(**target), datetime.now(UTC))


@pytest.fixture(scope="module")
def written(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Three marks behind a base backup, the last one behind a failover."""
    pair.bucket = bucket = Away()
    pair.primary.run("CREATE TABLE journal (line text)")
    pair.primary.run("CREATE TABLE marks (name text PRIMARY KEY)", database="isa")
    pair.caught_up()
    times, lsns = dict[str, datetime](), dict[str, str]()
    with Streaming(pair, bucket, tmp_path_factory.mktemp("spool")) as streaming:
        streaming.stores(write(pair))
        reader = pair.take()
        for mark in "abc":
            pair.primary.run(f"INSERT INTO marks VALUES ('{mark}')", database="isa")
            lsns[mark] = str(pair.primary.ask(LSN))
            times[mark] = at = pair.primary.ask("SELECT clock_timestamp()")
            streaming.covers(at)
            streaming.stores(write(pair, 20_000))
            if mark == "b":
                pair.switch_over()
    return Written(pair, reader, times, lsns)


@contextmanager
def recovered(written: Written, point: Point) -> Iterator[tuple[Any, Any]]:
    with (
        written.pair.recovered(written.reader, point) as (endpoint, said),
        connect_scratch(endpoint, "isa") as connection,
    ):
        row = connection.execute(MARKS).fetchone()
        yield said, row[0] if row else None


@pytest.mark.parametrize(("mark", "marks"), [("a", "a"), ("b", "ab")])
def test_a_server_recovers_to_a_time_and_stops_before_the_next_commit(
    written: Written, mark: str, marks: str
) -> None:
    at = written.times[mark]
    with recovered(written, written.point(time=at)) as (said, found):
        assert (found, said.faults) == (marks, ())
        assert said.last <= at < said.stopped
        assert said.checked > 200  # the catalogues of each database


def test_a_server_recovers_to_an_lsn_and_leaves_no_trace_of_its_checks(written: Written) -> None:
    point = written.point(lsn=lsn_number(written.lsns["b"]))
    with recovered(written, point) as (said, found):
        assert (found, said.faults, said.lsn) == ("ab", (), written.lsns["b"])
    assert point.line.timeline == written.bases[0].timeline + 1


def test_a_point_that_the_stored_wal_does_not_reach_is_refused_with_what_is_covered(
    written: Written,
) -> None:
    settled = written.bases[0].settled
    for at, words in (
        (settled - timedelta(seconds=1), "no complete base backup is older"),
        (datetime.now(UTC) + timedelta(hours=1), "is in the future"),
    ):
        with pytest.raises(NotCovered, match=words) as refused:
            written.point(time=at)
        assert f"(from {written.reader.manifest.id})" in str(refused.value)


def test_a_server_that_runs_out_of_wal_before_the_point_ends_with_an_error(
    written: Written,
) -> None:
    point = written.point(time=written.times["b"])
    short = replace(point, line=Line(point.line.objects[:1]))
    with (
        pytest.raises(AssertionError, match="recovery ended before configured recovery target"),
        recovered(written, short),
    ):
        pass


def test_a_damaged_segment_is_named_before_a_server_starts(
    written: Written, tmp_path: Path
) -> None:
    point = written.point(time=written.times["b"])
    key = point.line.objects[0].key
    objects = written.pair.bucket.objects
    stored = objects[key]
    objects[key] = stored[:-1] + bytes([stored[-1] ^ 1])
    try:
        with pytest.raises(Damaged) as damaged, recovered(written, point):
            pass
        assert key in str(damaged.value)
    finally:
        objects[key] = stored


def test_the_databases_of_a_point_come_back_into_the_live_server(written: Written) -> None:
    pair, point = written.pair, written.point(time=written.times["b"])
    taken = pair.take_point(written.reader, point)
    assert taken.manifest.missing[0].startswith("no base backup: the databases are those of")
    assert bases_of([taken.manifest]) == ()
    told, differences = pair.restore(taken, "database isa")
    assert differences == ()
    assert pair.primary.ask(MARKS, database="isa") == "ab"
    assert "the old database is kept" in " ".join(told)
