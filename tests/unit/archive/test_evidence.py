from datetime import UTC, datetime
from typing import Any

import pyrage
import pytest

from archive.evidence.verdicts import (
    Evidence,
    proof_of,
    read_evidence,
    signer_of,
    write_evidence,
)
from errors import PermanentError

AT = datetime(2026, 11, 24, 1, 2, 3, 4000, tzinfo=UTC)
PREFIX = "test/redis/redis-20261124T010000Z-0a1b2c/"


class Bucket:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, key: str, body: bytes) -> None:
        self.objects[key] = body


def evidence(**more: Any) -> Evidence:
    fields = {
        "set": "redis-20261124T010000Z-0a1b2c",
        "component": "redis",
        "environment": "test",
        "manifest_sha256": "0" * 64,
        "verdict": "pass",
        "level": "L4",
        "begun": AT,
        "seconds": 74.2,
        "compared": 41,
        "things": 1_200_000,
    }
    return Evidence.model_validate({**fields, **more})


def kept(one: Evidence, identity: str) -> tuple[str, bytes]:
    bucket = Bucket()
    key = write_evidence(bucket, PREFIX, one, identity)  # type: ignore[arg-type]
    return key, bucket.objects[key]


def test_what_was_written_is_read_and_its_name_tells_time_and_verdict() -> None:
    identity = str(pyrage.x25519.Identity.generate())
    key, document = kept(evidence(), identity)
    assert read_evidence(document, key, [signer_of(identity)]) == evidence()
    proof = proof_of(key, key.removeprefix(PREFIX))
    assert proof is not None
    assert (proof.at, proof.verdict) == (AT, "pass")


def test_a_verdict_that_somebody_else_wrote_is_not_believed() -> None:
    key, document = kept(evidence(), str(pyrage.x25519.Identity.generate()))
    pool = signer_of(str(pyrage.x25519.Identity.generate()))
    with pytest.raises(PermanentError, match=r"not in verify\.signers"):
        read_evidence(document, key, [pool])


def test_a_verdict_that_was_changed_is_seen() -> None:
    pool = str(pyrage.x25519.Identity.generate())
    key, document = kept(evidence(verdict="fail"), pool)
    with pytest.raises(PermanentError, match="changed after it was signed"):
        read_evidence(document.replace(b'"fail"', b'"pass"'), key, [signer_of(pool)])


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"signer": "zz", "signature": ""}'])
def test_garbage_is_no_evidence(document: bytes) -> None:
    with pytest.raises(PermanentError, match="not a valid verdict"):
        read_evidence(document, "here", ["zz"])


def test_the_sentence_says_what_no_other_tool_can() -> None:
    said = evidence().sentence
    assert said == "restore verified (L4): 41 checks match over 1,200,000 objects, 74 s"


def test_the_key_stays_the_same_and_tells_nothing_of_the_identity() -> None:
    identity = str(pyrage.x25519.Identity.generate())
    assert signer_of(identity) == signer_of(f"{identity}\n")
    assert signer_of(identity) not in identity.lower()
