"""Whose word counts that a set was restored: the verify pool's alone, on the very manifest that lies there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pyrage
import pytest

from archive.backup.manifest import Manifest, read_manifest
from archive.bounds import MANIFEST_BYTES
from archive.catalogue.listing import Catalogue, read_catalogue
from archive.evidence.verdicts import Evidence, proof_of, signer_of, write_evidence
from archive.object_store.entries import Entry
from archive.signing import Trust

from .test_retention import KEY, SIGNERS, a_set

AT = datetime(2026, 11, 24, 1, 2, 3, 4000, tzinfo=UTC)
LATER = AT + timedelta(hours=1)


class Bucket:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.reads = 0

    def put(self, key: str, body: bytes) -> None:
        self.objects[key] = body

    def get(self, key: str, limit: int = MANIFEST_BYTES, version: str = "") -> bytes:
        self.reads += 1
        return self.objects[key]

    def list(self, prefix: str) -> list[Entry]:
        return [
            Entry(key, len(body), AT)
            for key, body in sorted(self.objects.items())
            if key.startswith(prefix)
        ]


class Vault:
    """A set with a failed proof, and whoever wants it to be a good one."""

    def __init__(self) -> None:
        self.bucket: Any = Bucket()
        self.pool, self.other = (str(pyrage.x25519.Identity.generate()) for _ in range(2))
        self.made: Manifest = a_set(3)
        self.bucket.put(self.made.own_key, self.made.signed(KEY))
        self.failed = self.say("fail", AT)

    def say(self, verdict: str, at: datetime, by: str = "", **more: Any) -> str:
        fields = {
            "set": self.made.id,
            "component": self.made.component,
            "environment": self.made.environment,
            "manifest_sha256": hashlib.sha256(self.made.to_bytes()).hexdigest(),
            "verdict": verdict,
            "level": "L4",
            "begun": at,
            "seconds": 1.0,
        }
        said = Evidence.model_validate({**fields, **more})
        return write_evidence(self.bucket, self.made.prefix, said, by or self.pool)

    @property
    def renamed(self) -> str:
        """The name that the failed proof would have, had it passed."""
        return self.failed.replace("-fail", "-pass")

    def read(self, **more: Any) -> Catalogue:
        signers = more.get("signers", [signer_of(self.pool)])
        trust = Trust(more.get("backups", SIGNERS), tuple(signers))
        return read_catalogue(self.bucket, self.made.environment, [self.made.component], trust)


FORGERIES: dict[str, Callable[[Vault], object]] = {
    "signed by another": lambda on: on.say("pass", LATER, on.other),
    "under another name": lambda on: on.bucket.put(on.renamed, on.bucket.get(on.failed)),
    "changed": lambda on: on.bucket.put(
        on.renamed, on.bucket.get(on.failed).replace(b'"fail"', b'"pass"')
    ),
    "of another manifest": lambda on: on.say("pass", LATER, manifest_sha256="0" * 64),
    "of another set": lambda on: on.say("pass", LATER, set=a_set(9).id),
    "of another environment": lambda on: on.say("pass", LATER, environment="staging"),
    "no document": lambda on: on.bucket.put(on.renamed, b"pass"),
}


@pytest.mark.parametrize("how", FORGERIES)
def test_a_forged_pass_is_named_and_does_not_count(how: str) -> None:
    on = Vault()
    FORGERIES[how](on)
    found = on.read()
    assert found.verdict(on.made.id) == "fail"
    assert found.proven == set()
    assert set(found.disbelieved) == set(on.bucket.objects) - {on.made.own_key, on.failed}


def test_the_pools_own_later_word_counts() -> None:
    on = Vault()
    key = on.say("pass", LATER)
    assert on.read().proven == {on.made.id}
    assert on.read().disbelieved == {}
    assert proof_of(key, key.removeprefix(on.made.prefix)) is not None


def test_without_a_known_key_nobodys_verdict_counts() -> None:
    on = Vault()
    on.say("pass", LATER)
    found = on.read(signers=())
    assert found.proven == set()
    assert all("verify.signers is empty" in why for why in found.disbelieved.values())


def test_without_a_known_key_no_backup_counts() -> None:
    on = Vault()
    found = on.read(backups=())
    assert found.sets == ()
    assert "backup.signers is empty" in found.broken[on.made.own_key]


def test_a_field_that_a_later_version_adds_does_not_make_it_another_manifest() -> None:
    class Later(Manifest):
        more: tuple[str, ...] = ()

    stored = a_set(3).signed(KEY)
    body = {
        key: value
        for key, value in json.loads(stored).items()
        if key not in ("sha256", "signer", "signature")
    }
    again = cast(Manifest, Later.model_validate(body))
    read = read_manifest(stored, a_set(3).own_key, SIGNERS)
    assert again.to_bytes() != read.to_bytes()
    assert again.to_bytes(as_read=True) == read.to_bytes()
