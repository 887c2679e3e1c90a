"""Evidence is append-only: deleting the document of a failed proof does not bring an earlier pass back."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pyrage
import pytest

from archive.backup.manifest import Manifest, read_manifest
from archive.catalogue.listing import Catalogue, read_catalogue
from archive.evidence.chain import RECORDED, Record, next_link, read_record
from archive.evidence.verdicts import Evidence, manifest_digest, signer_of, write_evidence
from archive.signing import Trust

from .test_belief import Bucket
from .test_retention import KEY, SIGNERS, a_set

AT = datetime(2026, 11, 24, 1, 2, 3, 4000, tzinfo=UTC)


class Place:
    """A bucket with a full set and one that rests on it, and the verify pool that proves the second."""

    def __init__(self) -> None:
        self.bucket: Any = Bucket()
        self.pool = str(pyrage.x25519.Identity.generate())
        self.recorded: dict[str, int] = {}
        self.base = self.commit(a_set(2))
        self.made = self.commit(a_set(3, kind="incremental", needs=(self.base.id,)))
        self.hour = 0

    def commit(self, made: Manifest) -> Manifest:
        self.bucket.put(made.own_key, made.signed(KEY))
        return read_manifest(self.bucket.get(made.own_key), made.own_key, SIGNERS)

    def prove(self, verdict: str, **more: Any) -> str:
        """Write what a proof writes, an hour after the one before; returns the key."""
        self.hour += 1
        last = self.recorded.get(self.made.id, 0)
        number, previous = next_link(
            self.bucket, self.made.environment, self.made.id, [signer_of(self.pool)], last
        )
        fields = {
            "set": self.made.id,
            "component": self.made.component,
            "environment": self.made.environment,
            "manifest_sha256": manifest_digest(self.made),
            "chain": {self.base.id: manifest_digest(self.base)},
            "verdict": verdict,
            "level": "L4",
            "begun": AT + timedelta(hours=self.hour),
            "seconds": 1.0,
            "number": number,
            "previous": previous,
        }
        said = Evidence.model_validate({**fields, **more})
        self.recorded[self.made.id] = number
        return write_evidence(self.bucket, self.made.prefix, said, self.pool)

    def delete(self, key: str) -> None:
        del self.bucket.objects[key]

    def read(self, *, recorded: bool = True) -> Catalogue:
        return self.read_with(Record(self.recorded) if recorded else Record())

    def read_with(self, record: Record) -> Catalogue:
        trust = Trust(SIGNERS, (signer_of(self.pool),))
        return read_catalogue(self.bucket, "test", ["redis"], trust, {"redis": record})


def test_an_unbroken_chain_says_what_its_newest_document_says() -> None:
    at = Place()
    for verdict in ("pass", "error", "fail", "error"):
        at.prove(verdict)
    found = at.read()
    assert found.verdict(at.made.id) == "fail"
    assert (found.gaps, found.disbelieved) == ({}, {})


def test_deleting_the_newest_fail_does_not_bring_the_pass_before_it_back() -> None:
    at = Place()
    at.prove("pass")
    at.delete(at.prove("fail"))
    found = at.read()
    assert found.verdict(at.made.id) == ""
    assert found.proven == set()
    assert "number 2 was recorded" in found.gaps[at.made.id]


def test_deleting_a_fail_below_an_error_is_seen_in_the_bucket_alone() -> None:
    at = Place()
    at.prove("pass")
    failed = at.prove("fail")
    at.prove("error")
    at.delete(failed)
    found = at.read(recorded=False)
    assert found.proven == set()
    assert found.gaps[at.made.id] == "the verdict before number 3 is missing"


def test_an_error_that_follows_a_deleted_fail_does_not_bring_the_pass_back() -> None:
    at = Place()
    at.prove("pass")
    at.delete(at.prove("fail"))
    at.prove("error")
    assert at.read(recorded=False).proven == set()


def test_deleting_all_evidence_is_told() -> None:
    at = Place()
    at.delete(at.prove("fail"))
    assert at.made.id in at.read().gaps


def test_a_set_whose_last_verdict_is_missing_is_refused_like_one_that_failed() -> None:
    at = Place()
    at.prove("pass")
    assert at.made in at.read().sound("redis")
    assert at.read().refused(at.made.id) == ""
    at.delete(at.prove("fail"))
    found = at.read()
    assert found.sound("redis") == ()
    assert f"isa verify {at.made.id}" in found.refused(at.made.id)
    at.prove("pass")
    assert at.read().refused(at.made.id) == ""


def test_a_new_proof_closes_the_gap() -> None:
    at = Place()
    at.prove("pass")
    at.delete(at.prove("fail"))
    at.prove("pass")
    found = at.read()
    assert found.proven == {at.made.id}
    assert found.gaps == {}


def test_a_fail_counts_although_evidence_is_missing() -> None:
    at = Place()
    at.prove("fail")
    at.delete(at.prove("pass"))
    assert at.read().verdict(at.made.id) == "fail"


def test_two_documents_of_one_number_are_no_verdict() -> None:
    at = Place()
    at.prove("pass")
    at.prove("fail", number=1, previous="")
    found = at.read(recorded=False)
    assert found.proven == set()
    assert found.gaps[at.made.id] == "there are two verdicts with number 1"


def test_the_number_decides_which_document_is_the_last_whatever_the_clocks_say() -> None:
    at = Place()
    at.prove("pass")
    at.prove("fail", begun=AT)
    assert at.read().verdict(at.made.id) == "fail"


def test_evidence_of_earlier_versions_counts_and_is_what_the_chain_begins_with() -> None:
    at = Place()
    old = at.prove("pass", number=0, previous="", chain={})
    at.recorded = {}
    assert at.read().proven == {at.made.id}
    at.prove("error")
    assert at.read().proven == {at.made.id}
    at.delete(old)
    assert at.read().gaps[at.made.id] == "the verdict before number 1 is missing"


@pytest.mark.parametrize("what", ["is missing", "another manifest"])
def test_a_pass_counts_for_the_very_sets_that_were_read(what: str) -> None:
    at = Place()
    key = at.prove("pass")
    if what == "is missing":
        at.delete(at.base.own_key)
    else:
        at.commit(at.base.model_copy(update={"tools": {"another": "1"}}))
    found = at.read()
    assert found.proven == set()
    assert what in found.disbelieved[key]


def test_a_deleted_fail_does_not_bring_the_pass_back_where_the_record_cannot_be_read() -> None:
    for text in ("[]", "{", "[" * 100_000, '{"%s":2,"other":3}', '{"%s":"2"}', '{"%s":0}'):
        at = Place()
        at.prove("pass")
        at.delete(at.prove("fail"))
        found = at.read_with(read_record(text.replace("%s", at.made.id)))
        assert found.proven == set(), text[:20]
        assert "could not be read" in found.gaps[at.made.id], text[:20]


def test_a_backup_that_nobody_has_verified_has_no_gap_where_the_record_cannot_be_read() -> None:
    assert Place().read_with(read_record("x")).gaps == {}


def test_what_a_lost_record_said_stays_unknown_until_the_backup_is_verified_again() -> None:
    at = Place()
    at.prove("pass")
    at.delete(at.prove("fail"))
    other = "redis-20261101T010000Z-0a1b2c"
    after = read_record(read_record("x").extended(other, 1, time.time()))
    assert at.read_with(after).proven == set()
    at.recorded = {}
    at.prove("pass")
    again = read_record(after.extended(at.made.id, at.recorded[at.made.id], time.time()))
    assert (at.read_with(again).proven, at.read_with(again).gaps) == ({at.made.id}, {})


def test_a_lost_record_says_nothing_of_backups_made_since() -> None:
    lost = datetime(2026, 11, 24, tzinfo=UTC).timestamp()
    record = read_record(read_record("x").extended("redis-20261101T010000Z-0a1b2c", 1, lost))
    assert record.number("redis-20261123T010000Z-0a1b2c") is None
    assert record.number("redis-20261125T010000Z-0a1b2c") == 0


def test_a_new_cluster_has_an_empty_record() -> None:
    assert read_record("") == read_record("{}") == Record()


def test_a_record_keeps_the_newest_sets_only() -> None:
    record = read_record("")
    for night in range(RECORDED + 5):
        name = f"redis-20261124T01{night // 60:02}{night % 60:02}Z-0a1b2c"
        record = read_record(record.extended(name, 1, 0))
    assert len(record.numbers) == RECORDED
    assert max(record.numbers) == name
