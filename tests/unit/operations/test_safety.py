"""Before data is replaced, every byte that brings it back was read: those in the earlier sets of a chain too."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from archive.backup.manifest import Artefact, Capabilities, Engine, Manifest, Measure
from archive.backup.reader import Damaged, SetReader
from components.minio.live import LIVE
from errors import PermanentError
from operations.backup.component import BackupResult, Unneeded
from operations.restore import safety_backup
from operations.runner.context import RunContext
from operations.state.restore_journal import InterruptedRestore

ABLE = Capabilities(conditional_put=True, checksums=True, versioning=True, object_lock=True)
BUCKETS = ("wanted", "other")
CHOSEN = ("bucket wanted",)


class Sets(dict[str, bytes]):
    """A store, and sets of MinIO in it: a body for each bucket, not sealed."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def read(self, key: str, version: str = "") -> Iterator[bytes]:
        self.seen.append(key)
        yield self[key]

    def make(self, hour: int, needs: tuple[str, ...] = (), missing: tuple[str, ...] = ()) -> Any:
        begun = datetime(2026, 1, 1, hour, tzinfo=UTC)
        body = f"versions of hour {hour}".encode()
        sha256 = hashlib.sha256(body).hexdigest()
        manifest = Manifest(
            id=f"minio-20260101T{hour:02d}0000Z-000000",
            component="minio",
            environment="test",
            cluster="uid",
            slot="night",
            kind="incremental" if needs else "full",
            needs=needs,
            begun=begun,
            ended=begun,
            outcome="partial" if missing else "complete",
            missing=missing,
            not_covered=(),
            engine=Engine(name="MinIO", version="1"),
            topology={"buckets": {name: {"bytes": len(body)} for name in BUCKETS}},
            consistency=(),
            artefacts=tuple(
                Artefact(
                    name=f"{name}.tar",
                    unit=f"bucket {name}",
                    format="tar",
                    plain_size=len(body),
                    plain_sha256=sha256,
                    stored_size=len(body),
                    stored_sha256=sha256,
                    part_size=1,
                    sealed=False,
                )
                for name in BUCKETS
            ),
            fingerprint=(),
            store=ABLE,
            recipients=(),
        )
        for artefact in manifest.artefacts:
            self[manifest.key(artefact)] = body
        return manifest

    def harm(self, manifest: Manifest, bucket: str) -> None:
        key = f"{manifest.prefix}{bucket}.tar"
        self[key] = self[key][:-1] + b"?"


@pytest.fixture
def sets() -> Sets:
    return Sets()


def safety(
    sets: Sets,
    monkeypatch: pytest.MonkeyPatch,
    earlier: Manifest,
    taken: Manifest,
    anew: Manifest | None = None,
    *,
    refusals: tuple[str, ...] = (),
    earlier_run: InterruptedRestore | None = None,
    chosen: tuple[str, ...] = CHOSEN,
    beyond: Manifest | None = None,
) -> safety_backup.SafetySet:
    """Take a safety backup: an incremental set, and where a full one is asked for, that."""
    made = {False: taken, True: anew}
    by_id = {one.id: one for one in (taken, anew) if one}

    def back_up(*_: Any, full: bool, needed: Callable[[Manifest], bool], **__: Any) -> BackupResult:
        one = made[full]
        assert one is not None, "no full one was to be taken"
        if not needed(one):
            raise Unneeded("empty")
        return BackupResult("minio", one.outcome, one.id)

    def backup_chain(identity: str) -> tuple[Manifest, tuple[Manifest, ...]]:
        return by_id[identity], (earlier,) if by_id[identity].needs else ()

    monkeypatch.setattr(safety_backup, "back_up", back_up)
    monkeypatch.setattr(safety_backup, "check_store", lambda environment: ABLE)
    access: Any = None
    live = SimpleNamespace(units=LIVE.units, can_take=lambda *_: list(refusals))
    environment: Any = SimpleNamespace(
        store=sets, backup_chain=backup_chain, components={"minio": SimpleNamespace(live=live)}
    )
    return safety_backup.take_safety(
        environment,
        RunContext("t"),
        "",
        "minio",
        chosen,
        access=access,
        earlier=earlier_run,
        beyond=beyond,
    )


def test_the_sets_that_a_safety_backup_rests_on_are_read_too(
    sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = sets.make(1)
    last = sets.make(2, (full.id,))
    assert safety(sets, monkeypatch, full, last).id == last.id
    assert sets.seen == [f"{one.prefix}wanted.tar" for one in (full, last)]


def test_one_that_rests_on_a_damaged_set_is_taken_anew_and_rests_on_none(
    sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = sets.make(1)
    last, anew = sets.make(2, (full.id,)), sets.make(3)
    sets.harm(full, "wanted")
    assert safety(sets, monkeypatch, full, last, anew).id == anew.id


def test_one_that_is_damaged_itself_is_none(sets: Sets, monkeypatch: pytest.MonkeyPatch) -> None:
    full = sets.make(1)
    last, anew = sets.make(2, (full.id,)), sets.make(3)
    for one in (last, anew):
        sets.harm(one, "wanted")
    with pytest.raises(Damaged, match=anew.id):
        safety(sets, monkeypatch, full, last, anew)


def test_nothing_is_replaced_that_the_safety_backup_does_not_wholly_have(
    sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = sets.make(1)
    other = sets.make(2, (full.id,), ("bucket other: 3 versions, encrypted",))
    assert safety(sets, monkeypatch, full, other) == safety_backup.SafetySet(other.id)
    mine = sets.make(3, (full.id,), ("bucket wanted: 3 versions, encrypted",))
    with pytest.raises(PermanentError, match="bucket wanted: 3 versions"):
        safety(sets, monkeypatch, full, mine)


@pytest.mark.parametrize("where", ["missing", "refused"])
def test_what_the_safety_backup_would_not_bring_back_costs_its_own_unit_and_no_other(
    where: str, sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = "bucket other: 3 versions, encrypted"
    full = sets.make(1)
    last = sets.make(2, (full.id,), (why,) if where == "missing" else ())
    found = safety(
        sets,
        monkeypatch,
        full,
        last,
        refusals=(why,) if where == "refused" else (),
        chosen=("bucket wanted", "bucket other"),
    )
    assert found.lost == {"bucket other": why}


def test_nothing_is_replaced_that_the_engine_would_not_take_back(
    sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = sets.make(1)
    last = sets.make(2, (full.id,))
    with pytest.raises(PermanentError, match="over its quota"):
        safety(sets, monkeypatch, full, last, refusals=("bucket wanted: over its quota",))


def test_what_a_run_has_half_replaced_is_in_its_own_safety_set_and_stops_no_repeat(
    sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = sets.make(1)
    hollow = sets.make(2, (full.id,), ("bucket wanted: it cannot be read",))
    run = InterruptedRestore("a set", (full.id,), CHOSEN)
    assert safety(sets, monkeypatch, full, hollow, earlier_run=run).lost == {}
    other = InterruptedRestore("a set", (full.id,), ("bucket other",))
    with pytest.raises(PermanentError, match="cannot be read"):
        safety(sets, monkeypatch, full, hollow, earlier_run=other)


def test_what_stays_as_it_is_needs_not_be_sound(sets: Sets) -> None:
    full = sets.make(1)
    sets.harm(full, "other")
    store: Any = sets
    reader = SetReader(store, full, "")
    reader.read_whole(["bucket other"])
    assert reader.whole == {f"{full.prefix}wanted.tar"}
    with pytest.raises(Damaged, match="other"):
        reader.read_whole()


EMPTY = Measure(unit="cluster", item="streams", count=0, origin="source")
TABLE = Measure(unit="database isa", item="rows of t", count=3, digest="ab", origin="source")
ROLES = Measure(
    unit="globals",
    item="roles",
    count=2,
    digest="cd",
    origin="source",
    names={"isa": "1", "app": "2"},
)
STOCK = ROLES.model_copy(update={"count": 1, "digest": "ef", "names": {"isa": "1"}})


@pytest.mark.parametrize(
    ("found", "more"),
    [
        ((EMPTY, STOCK), False),  # as an engine that was just installed
        ((TABLE,), False),
        ((EMPTY.model_copy(update={"count": 1, "digest": "ab"}),), True),
        ((EMPTY.model_copy(update={"until": 1}),), True),
        ((TABLE.model_copy(update={"digest": "other"}),), True),
        ((TABLE.model_copy(update={"digest": ""}),), True),  # as many, but nobody knows which
        ((TABLE.model_copy(update={"item": "rows of another"}),), True),
        ((STOCK.model_copy(update={"names": {"isa": "changed"}}),), True),
        ((STOCK.model_copy(update={"names": {"new": "1"}}),), True),
        ((STOCK.model_copy(update={"names": {}}),), True),
    ],
)
def test_an_engine_holds_more_than_a_set_where_any_measure_is_not_part_of_the_sets(
    sets: Sets, found: tuple[Measure, ...], more: bool
) -> None:
    made = sets.make(1)
    stored = made.model_copy(update={"fingerprint": (TABLE, ROLES)})
    taken = made.model_copy(update={"fingerprint": found})
    assert safety_backup.holds_more(taken, stored) is more
    partial = taken.model_copy(update={"outcome": "partial", "missing": ("a bucket",)})
    assert safety_backup.holds_more(partial, stored)


def test_no_safety_backup_is_kept_of_an_engine_that_holds_nothing_beyond_the_set(
    sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = sets.make(1).model_copy(update={"fingerprint": (EMPTY,)})
    assert safety(sets, monkeypatch, empty, empty, beyond=sets.make(2)).id == ""
    written = sets.make(1).model_copy(update={"fingerprint": (TABLE,)})
    assert safety(sets, monkeypatch, written, written, beyond=sets.make(2)).id == written.id
