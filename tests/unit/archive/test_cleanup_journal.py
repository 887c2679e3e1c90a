"""What engines hold for us stays noted until it is known to be gone, and a note that cannot be read does nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from archive.backup.cleanup_journal import (
    CleanupJournal,
    ExportArchive,
    HalfReplaced,
    Resource,
    ServerLimits,
    ShardSnapshot,
    StoppedMember,
    Unreadable,
    notes_text,
    read_notes,
)

SET = "nats-20260101T000500Z-0a1b2c"
SNAPSHOT = ShardSnapshot(
    peer="qdrant-0", collection="a/../b", shard=0, known=(), asked=datetime(2026, 1, 1, tzinfo=UTC)
)
ARCHIVE = ExportArchive(node="emqx-0", known=("a.tar.gz",), since=1_767_225_600)
STOPPED = StoppedMember(statefulset="neo4j-1", replicas=1)
LIMITS = ServerLimits(limits={"redis-cluster-0": {"proto-max-bulk-len": "536870912"}})
HALF = HalfReplaced(replacing=("stream app/ORDERS",), restoring=SET, safety=(SET,))


@pytest.fixture
def noted() -> list[list[Resource]]:
    return []


def test_what_nobody_has_removed_is_carried_on(noted: list[list[Resource]]) -> None:
    left = CleanupJournal([SNAPSHOT, ARCHIVE], lambda held: noted.append(list(held)))
    assert left.earlier(ShardSnapshot) == (SNAPSHOT,)
    mine = SNAPSHOT.model_copy(update={"peer": "qdrant-1"})
    left.hold(mine)
    left.release(mine)
    assert noted == [[SNAPSHOT, ARCHIVE, mine], [SNAPSHOT, ARCHIVE]]
    left.release(SNAPSHOT)
    assert noted[-1] == [ARCHIVE]


def test_what_breaks_off_in_the_midst_stays_noted(noted: list[list[Resource]]) -> None:
    left = CleanupJournal([], lambda held: noted.append(list(held)), restoring=SET, safety=(SET,))
    with pytest.raises(OSError, match="away"), left.replacing(["stream app/ORDERS"]):
        raise OSError("away")
    assert noted == [[HALF]]
    with left.replacing(["stream app/ORDERS"]):
        pass
    assert noted[-1] == [HALF]  # the first one's


def test_notes_are_read_as_they_were_written() -> None:
    notes = (SNAPSHOT, ARCHIVE, LIMITS, HALF, STOPPED, Unreadable(unreadable="x"))
    assert read_notes(notes_text(notes)) == notes
    assert read_notes("") == read_notes("[]") == ()


@pytest.mark.parametrize(
    "entry",
    [
        {"peer": "qdrant-0", "path": "@evil.example/x", "known": [], "asked": "2026-01-01T00:00:00Z"},
        {**SNAPSHOT.model_dump(mode="json"), "shard": "0/../../x"},
        {**SNAPSHOT.model_dump(mode="json"), "peer": "@evil.example"},
        {"statefulset": "neo4j-1", "replicas": 3},
        {},
        {"statefulset": "redis-cluster", "replicas": 1},
        {"limits": {"redis-cluster-0": {"requirepass": "1"}}},
        {"limits": {"redis-cluster-0": {"proto-max-bulk-len": "1 GB"}}},
        {"node": "emqx-0", "known": "all", "since": 0},
        {"replacing": ["stream app/ORDERS"]},
        {"replacing": [], "restoring": SET, "safety": []},
        {"replacing": ["x"], "restoring": "x; rm -rf /", "safety": []},
        1,
        [],
        None,
    ],
)  # fmt: skip
def test_an_entry_of_no_known_form_is_carried_on_as_unreadable(entry: Any) -> None:
    (note, other) = read_notes(json.dumps([entry, ARCHIVE.model_dump(mode="json")]))
    assert isinstance(note, Unreadable)
    assert other == ARCHIVE
    assert read_notes(notes_text([note, other])) == (note, other)


@pytest.mark.parametrize("text", ["x", "{}", '"a"', "[" * 5_000, "[NaN", '["\\ud800"]'])
def test_a_text_that_is_no_list_is_one_unreadable_note(text: str) -> None:
    (note,) = read_notes(text)
    assert isinstance(note, Unreadable)
    assert read_notes(notes_text([note])) == (note,)
