"""What stored WAL covers, decided from the listing alone: lines, gaps, forks, timelines."""

from __future__ import annotations

import random
from datetime import timedelta
from itertools import pairwise

import pytest

from archive.wal.coverage import NotCovered, Wal

from .history import NOON, SEGMENT, Cluster


@pytest.fixture
def cluster() -> Cluster:
    """Five segments and a half on timeline 1."""
    made = Cluster()
    made.write(5 * SEGMENT + SEGMENT // 2)
    return made


def boundaries(first: int, last: int) -> list[int]:
    return [number * SEGMENT for number in range(first, last + 1)]


def test_segments_and_the_growing_one_are_one_line(cluster: Cluster) -> None:
    objects = cluster.stored(1, *boundaries(1, 5), 330, 340, 352, begins=True)
    found = Wal(objects, ()).coverage
    assert found.complete
    assert [(line.start, line.end) for line in found.lines] == [(64, 352)]
    assert (
        found.lines[0].words == "0/40 to 0/160 (timeline 1, commits until 2026-11-29 12:05:52 UTC)"
    )


def test_the_order_of_the_listing_does_not_matter(cluster: Cluster) -> None:
    objects = cluster.stored(1, *boundaries(1, 5), 330, 340, 352, begins=True)
    random.Random(1).shuffle(objects)
    assert Wal(objects, ()).coverage.complete


@pytest.mark.parametrize("lost", range(1, 7))
def test_a_missing_object_is_a_gap_with_its_exact_range(cluster: Cluster, lost: int) -> None:
    objects = cluster.stored(1, *boundaries(0, 5), 340, 352, begins=True)
    gone = objects.pop(lost)
    found = Wal(objects, ()).coverage
    if lost == 6:  # the newest: no listing can show it
        assert [line.end for line in found.lines] == [gone.start]
        return
    assert [(gap.before.end, gap.after.start) for gap in found.gaps] == [(gone.start, gone.end)]
    assert "is missing" in found.gaps[0].words
    assert not found.complete


def test_a_complete_segment_takes_the_place_of_the_pieces_that_it_was_stored_in_before(
    cluster: Cluster,
) -> None:
    pieces = cluster.stored(1, 64, 70, 100, 128, begins=True)
    whole = cluster.stored(1, 64, 128, begins=True)
    rest = cluster.stored(1, 128, 192)
    line = Wal([*pieces, *whole, *rest], ()).coverage.lines[0]
    assert [one.size for one in line.objects] == [64, 64]
    assert Wal([*pieces, *rest], ()).coverage.complete
    assert Wal([*pieces[:-1], *whole, *rest], ()).coverage.complete


def test_a_segment_that_was_stored_in_other_pieces_after_a_restart_is_no_gap(
    cluster: Cluster,
) -> None:
    first = cluster.stored(1, 0, 64, 90, 100, begins=True)
    again = cluster.stored(1, 64, 80, 100, 128)
    line = Wal([*first, *again], ()).coverage.lines[0]
    assert (line.start, line.end) == (0, 128)


def test_objects_that_fit_by_position_but_are_of_another_history_are_no_line(
    cluster: Cluster,
) -> None:
    stranger = Cluster()
    stranger.wal[1] = bytes(len(cluster.wal[1]))
    objects = [*cluster.stored(1, 0, 64, 128, begins=True), *stranger.stored(1, 128, 192)]
    found = Wal(objects, ()).coverage
    assert [(line.start, line.end) for line in found.lines] == [(0, 128), (128, 192)]
    assert "does not continue" in found.gaps[0].words


def test_two_histories_of_one_timeline_are_reported(cluster: Cluster) -> None:
    other = Cluster()
    other.wal[1] = cluster.wal[1][:100] + bytes(28)
    objects = [*cluster.stored(1, 0, 64, 100, 128, begins=True), *other.stored(1, 100, 128)]
    found = Wal(objects, ()).coverage
    assert found.forks == ("two different WALs up to 0/80 of timeline 1 are stored",)
    assert not found.complete


def test_wal_that_begins_again_after_a_lost_slot_is_a_named_gap(cluster: Cluster) -> None:
    objects = [
        *cluster.stored(1, 0, 64, 100, begins=True),
        *cluster.stored(1, 256, 320, 352, begins=True),
    ]
    found = Wal(objects, ()).coverage
    assert [gap.words for gap in found.gaps] == [
        "0/64 to 0/100 is missing (156 bytes) before timeline 1"
    ]


def promoted(cluster: Cluster) -> None:
    """Timeline 2 leaves timeline 1 at 200, in the fourth segment."""
    cluster.promote(1, 200, 2)
    cluster.write(150, 2)


def test_a_promotion_is_followed_without_a_gap(cluster: Cluster) -> None:
    promoted(cluster)
    old = cluster.stored(1, *boundaries(0, 3), 210, begins=True)
    new = cluster.stored(2, 192, 256, 320, 350)
    found = Wal([*old, *new], cluster.histories).coverage
    assert found.complete
    line = found.lines[0]
    # the segment of the switch is read from the new timeline
    assert [(one.timeline, one.start) for one in line.objects] == [
        (1, 0), (1, 64), (1, 128), (2, 192), (2, 256), (2, 320),
    ]  # fmt: skip
    assert line.words.startswith("0/0 to 0/15E (timelines 1 to 2")


def test_a_promotion_within_the_first_stored_segment_is_followed(cluster: Cluster) -> None:
    end = cluster.write(SEGMENT + 20)
    old = cluster.stored(1, SEGMENT, SEGMENT + 10, end, begins=True)
    cluster.promote(1, SEGMENT + 15, 2)
    end = cluster.write(40, timeline=2)
    new = cluster.stored(2, SEGMENT, SEGMENT + 10, end, begins=True)
    found = Wal([*old, *new], cluster.histories).coverage
    assert found.complete, found
    (line,) = found.lines
    assert (line.start, line.end, line.timeline) == (SEGMENT, end, 2)


def test_a_missing_timeline_history_is_named(cluster: Cluster) -> None:
    promoted(cluster)
    objects = [*cluster.stored(1, *boundaries(0, 3), begins=True), *cluster.stored(2, 192, 256)]
    found = Wal(objects, ()).coverage
    assert found.unknown == (2,)
    assert not found.complete
    with pytest.raises(NotCovered):
        Wal(objects, ()).from_base(1, 130, SEGMENT).up_to_lsn(250)


def test_a_switch_that_happened_before_the_stored_segment_is_not_followed(cluster: Cluster) -> None:
    cluster.promote(1, 100, 2)
    cluster.write(200, 2)
    objects = [*cluster.stored(1, *boundaries(0, 3), begins=True), *cluster.stored(2, 192, 256)]
    assert not Wal(objects, cluster.histories).coverage.complete


def test_two_promotions_within_one_segment_are_followed(cluster: Cluster) -> None:
    cluster.promote(1, 200, 2)
    cluster.write(10, 2)
    cluster.promote(2, 205, 3)
    cluster.write(100, 3)
    objects = [
        *cluster.stored(1, *boundaries(0, 3), begins=True),
        *cluster.stored(3, 192, 256, 300),
    ]
    assert Wal(objects, cluster.histories).coverage.complete
    assert not Wal(objects, cluster.histories[1:]).coverage.complete


def test_recovery_of_a_base_begins_at_the_segment_of_its_end(cluster: Cluster) -> None:
    wal = Wal(cluster.stored(1, *boundaries(0, 5), 352, begins=True), ())
    line = wal.from_base(1, 150, SEGMENT)
    assert (line.start, line.end) == (128, 352)


@pytest.mark.parametrize("lsn", [10, 353, 400])
def test_a_base_whose_wal_is_not_stored_is_refused_with_what_is(cluster: Cluster, lsn: int) -> None:
    wal = Wal(cluster.stored(1, *boundaries(1, 5), 352, begins=True), ())
    with pytest.raises(NotCovered, match="Stored: 0/40 to 0/160"):
        wal.from_base(1, lsn, SEGMENT)


def test_a_base_from_behind_the_switch_of_the_old_timeline_is_refused(cluster: Cluster) -> None:
    promoted(cluster)
    objects = [*cluster.stored(1, *boundaries(0, 3), begins=True), *cluster.stored(1, 192, 256)]
    objects += cluster.stored(2, 192, 256, 320)
    with pytest.raises(NotCovered, match="no longer part of the database"):
        Wal(objects, cluster.histories).from_base(1, 230, SEGMENT)
    assert Wal(objects, cluster.histories).from_base(1, 199, SEGMENT).timeline == 2


def test_a_base_of_the_new_timeline_in_the_segment_of_the_switch_is_found(cluster: Cluster) -> None:
    promoted(cluster)
    objects = [*cluster.stored(1, *boundaries(0, 3), begins=True), *cluster.stored(2, 192, 256)]
    assert Wal(objects, cluster.histories).from_base(2, 210, SEGMENT).end == 256


def test_two_histories_at_a_base_are_refused(cluster: Cluster) -> None:
    other = Cluster()
    other.wal[1] = bytes(200)
    objects = [*cluster.stored(1, 0, 64, 128, begins=True), *other.stored(1, 0, 64, 128)]
    with pytest.raises(NotCovered, match="two histories"):
        Wal(objects, ()).from_base(1, 70, SEGMENT)


def test_a_line_is_cut_at_an_lsn(cluster: Cluster) -> None:
    line = Wal(cluster.stored(1, *boundaries(0, 5), 352, begins=True), ()).coverage.lines[0]
    assert line.up_to_lsn(128).end == 128
    assert line.up_to_lsn(129).end == 192
    assert line.up_to_lsn(352) == line
    with pytest.raises(NotCovered, match=r"LSN 0/161 is not stored. Stored: 0/0 to 0/160"):
        line.up_to_lsn(353)


def test_a_line_is_cut_behind_the_first_commit_after_a_time(cluster: Cluster) -> None:
    line = Wal(cluster.stored(1, *boundaries(0, 5), 352, begins=True), ()).coverage.lines[0]
    assert line.up_to_time(NOON + timedelta(seconds=127)).end == 128
    assert line.up_to_time(NOON + timedelta(seconds=128)).end == 192
    with pytest.raises(NotCovered, match="not followed by a stored commit"):
        line.up_to_time(NOON + timedelta(seconds=352))


def test_any_subset_of_the_objects_gives_lines_of_objects_that_continue_each_other(
    cluster: Cluster,
) -> None:
    promoted(cluster)
    everything = [
        *cluster.stored(1, *boundaries(0, 3), 210, 240, begins=True),
        *cluster.stored(1, 64, 70, 90, 128),
        *cluster.stored(2, 192, 200, 230, 256, 300, 320, 350),
        *cluster.stored(2, 192, 256, 320),
    ]
    chance = random.Random(23)
    for _ in range(300):
        objects = chance.sample(everything, chance.randint(1, len(everything)))
        found = Wal(objects, cluster.histories).coverage
        assert found.lines
        for line in found.lines:
            for one, following in pairwise(line.objects):
                assert (one.end, one.through) == (following.start, following.before)
        # with all objects there is one line; each gap is one that a lost object leaves
        assert len(found.gaps) == len(found.lines) - 1
        assert found.complete or len(objects) < len(everything)
