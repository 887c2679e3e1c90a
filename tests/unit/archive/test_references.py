"""A backup refers to what an earlier one stores, and is read as if it had stored it itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from archive.backup.digests import NAME
from archive.backup.encryption import SUFFIX
from archive.backup.manifest import Artefact, Manifest, Measure, read_manifest
from archive.backup.reader import Damaged, SetReader
from archive.backup.references import References, fully_needed, unfounded_reference
from archive.backup.writer import SetWriter
from archive.catalogue.listing import find_chain
from archive.signing import Trust
from errors import PermanentError

from .test_digests import Objects, measure_of
from .test_retention import KEY, SIGNERS, a_set

POOL = pyrage.x25519.Identity.generate()
RECIPIENTS = (str(POOL.to_public()),)
UNIT = "database shop"
TRUST = Trust(SIGNERS)


class Store(Objects):
    """The same, with what the catalogue asks."""

    def get(self, key: str, limit: int = 0, version: str = "") -> bytes:
        return self.objects[key]


class Backups:
    """Backups of one component, each of two units: one that never changes, and one that always does."""

    def __init__(self, spool: Path) -> None:
        self.store, self._spool = Store(), spool
        self.reads = 0

    def take(
        self,
        day: int,
        *chain: Manifest,
        state: Any = 1,
        after: Any = None,
        key: Ed25519PrivateKey = KEY,
    ) -> Manifest:
        """One backup; `after` is the unit's state when it has been read."""
        begun = a_set(day, recipients=RECIPIENTS)
        writer = SetWriter(self.store, begun.prefix, RECIPIENTS, key, self._spool)
        references = References(writer, chain)
        held = references.unchanged(UNIT, state)
        if held is not None:
            fingerprint = tuple(one for one in held.fingerprint if one.unit == UNIT)
        else:
            self.reads += 1
            writer.add("shop/card.dump", UNIT, "pg_dump custom", [f"card {state}".encode()])
            fingerprint = (measure_of(state),)
            references.stored(UNIT, state, state if after is None else after)
        writer.add("log.dump", "log", "pg_dump custom", [f"log {day}".encode()])
        other = Measure(unit="log", item="rows", count=day, digest="0a" * 16, origin="source")
        return self._read(
            writer.commit(
                begun.model_copy(
                    update={
                        "artefacts": writer.artefacts,
                        "fingerprint": (*fingerprint, other),
                        "states": references.states,
                        "needs": references.needs,
                    }
                )
            )
        )

    def reader(self, manifest: Manifest, *earlier: Manifest) -> SetReader:
        return SetReader(self.store, manifest, str(POOL), earlier)

    def _read(self, stored: Manifest) -> Manifest:
        return read_manifest(self.store.objects[stored.own_key], stored.own_key, SIGNERS)


@pytest.fixture
def backups(tmp_path: Path) -> Backups:
    return Backups(tmp_path)


def test_an_unchanged_unit_is_stored_once_and_read_from_the_backup_that_stored_it(
    backups: Backups,
) -> None:
    full = backups.take(0)
    second = backups.take(1, full)
    assert backups.reads == 1
    assert second.needs == (full.id,)
    assert second.holders == {full.id}
    assert second.stored_size < full.stored_size
    reader = backups.reader(second, full)
    assert reader.read("shop/card.dump") == b"card 1"
    assert reader.read("log.dump") == b"log 1"
    assert reader.sha256("shop/card.dump") == hashlib.sha256(b"card 1").hexdigest()
    assert reader.manifest.fingerprint[0] == measure_of(1)


def test_a_reference_names_the_backup_that_stores_the_bytes_and_none_between(
    backups: Backups,
) -> None:
    full = backups.take(0)
    second = backups.take(1, full)
    third = backups.take(2, full, second)
    assert third.needs == (full.id,)
    del backups.store.objects[second.own_key]
    assert backups.reader(third, full).read("shop/card.dump") == b"card 1"
    assert backups.reader(third, full).manifest.fingerprint[0] == measure_of(1)


def test_a_changed_unit_is_stored_again_and_needs_nothing(backups: Backups) -> None:
    full = backups.take(0)
    second = backups.take(1, full, state=2)
    assert second.needs == ()
    assert not second.holders
    assert backups.reader(second).read("shop/card.dump") == b"card 2"


def test_a_unit_that_changed_while_it_was_stored_is_stored_again(backups: Backups) -> None:
    full = backups.take(0, after=2)
    assert UNIT not in full.states
    assert not backups.take(1, full).holders


def test_after_a_change_of_the_signing_key_everything_is_stored_again(backups: Backups) -> None:
    full = backups.take(0)
    writer = SetWriter(backups.store, "x/", RECIPIENTS, Ed25519PrivateKey.generate(), Path())
    assert References(writer, (full,)).unchanged(UNIT, 1) is None


def test_the_state_in_the_manifest_cannot_be_guessed(backups: Backups) -> None:
    full = backups.take(0)
    for text in (b"1", b'{"":1}'):
        assert full.states[UNIT] != hashlib.sha256(text).hexdigest()


def test_a_restore_reads_of_the_earlier_backup_only_what_it_needs(backups: Backups) -> None:
    full = backups.take(0)
    second = backups.take(1, full)
    del backups.store.objects[full.prefix + "log.dump" + SUFFIX]
    reader = backups.reader(second, full)
    reader.read_whole()
    assert full.prefix + "shop/card.dump" + SUFFIX in reader.whole
    assert fully_needed(second, (full,)) == ()
    chained = a_set(2, needs=(full.id,))
    assert fully_needed(chained, (full,)) == (full,)


def test_a_damaged_artefact_of_the_earlier_backup_is_found(backups: Backups) -> None:
    full = backups.take(0)
    second = backups.take(1, full)
    key = full.prefix + "shop/card.dump" + SUFFIX
    backups.store.objects[key] = backups.store.objects[full.prefix + "log.dump" + SUFFIX]
    with pytest.raises(Damaged):
        backups.reader(second, full).read_rest()


def test_a_unit_that_is_dropped_leaves_the_earlier_backup_alone(
    backups: Backups, tmp_path: Path
) -> None:
    full = backups.take(0)
    writer = SetWriter(backups.store, "test/redis/x/", RECIPIENTS, KEY, tmp_path)
    references = References(writer, (full,))
    assert references.unchanged(UNIT, 1) is full
    writer.drop("shop/")  # this store cannot delete: a purge would raise
    assert (writer.artefacts, references.needs) == ((), ())


# ---------------------------------------------------------------------- hostile manifests
def refused(manifest: Manifest) -> str:
    with pytest.raises(PermanentError) as caught:
        read_manifest(manifest.signed(KEY), manifest.own_key, SIGNERS)
    return str(caught.value)


def test_a_reference_to_no_earlier_backup_of_the_component_is_refused() -> None:
    own, later, foreign = a_set(3).id, a_set(4).id, a_set(1).id.replace("redis", "nats")
    for holder in (own, later, foreign):
        referring = a_set(3, artefacts=(artefact(holder),), needs=(holder,))
        assert "not an earlier one of its component" in refused(referring)
        assert "not one of the backups that it depends on" in refused(
            referring.model_copy(update={"needs": ()})
        )
    with pytest.raises(ValueError, match="stored_in"):
        artefact("staging/redis/../x")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another cluster": ({"cluster": "another"}, "another cluster"),
    "a partial backup": ({"outcome": "partial"}, "which is partial"),
    "other keys": ({"recipients": ("age1other",)}, "encrypted for other keys"),
    "nothing of that name": ({"artefacts": ()}, "does not store it"),
}


@pytest.mark.parametrize(("changes", "why"), WRONG.values(), ids=WRONG)
def test_a_reference_that_does_not_hold_is_refused(
    backups: Backups, changes: dict[str, Any], why: str
) -> None:
    full = backups.take(0)
    second = backups.take(1, full)
    assert find_chain(backups.store, "test", second.id, TRUST) == (second, (full,))
    forged = full.model_copy(update=changes)
    backups.store.objects[full.own_key] = forged.signed(KEY)
    with pytest.raises(PermanentError, match=why):
        find_chain(backups.store, "test", second.id, TRUST)


def test_a_reference_to_a_reference_and_to_other_bytes_is_refused(backups: Backups) -> None:
    full = backups.take(0)
    second = backups.take(1, full)
    third = backups.take(2, full, second)

    def pointing(change: Callable[[Artefact], dict[str, Any]]) -> Manifest:
        artefacts = tuple(
            one.model_copy(update=change(one)) if one.stored_in else one for one in third.artefacts
        )
        return third.model_copy(update={"artefacts": artefacts, "needs": (full.id, second.id)})

    between = pointing(lambda _: {"stored_in": second.id})
    assert "does not store it" in unfounded_reference(between, (full, second))
    other = pointing(lambda _: {"stored_sha256": "0" * 64})
    assert "does not store it" in unfounded_reference(other, (full, second))
    digests = third.model_copy(
        update={
            "artefacts": tuple(
                one.model_copy(update={"stored_in": full.id}) if NAME in one.name else one
                for one in third.artefacts
            )
        }
    )
    assert "has digests of its own" in unfounded_reference(digests, (full,))


def artefact(holder: str) -> Artefact:
    return Artefact(
        name="a.zst.age", unit="a", format="f", plain_size=1, plain_sha256="", stored_size=1,
        stored_sha256="0" * 64, part_size=1, stored_in=holder,
    )  # fmt: skip
