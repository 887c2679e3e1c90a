import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from archive.backup.manifest import Artefact, Manifest, begun_of, new_identity, read_manifest
from errors import PermanentError

from .test_retention import KEY, SIGNERS, a_set

SCHEMA = Path(__file__).resolve().parents[3] / "docs/reference/manifest.schema.json"


def test_the_schema_is_up_to_date() -> None:
    assert json.loads(SCHEMA.read_text()) == Manifest.model_json_schema(), (
        "python -m archive.backup.manifest > docs/reference/manifest.schema.json"
    )


def test_what_was_written_is_read() -> None:
    manifest = a_set(3, missing=("a table",), outcome="partial")
    assert read_manifest(manifest.signed(KEY), manifest.own_key, SIGNERS) == manifest


def test_a_bit_that_flipped_anywhere_is_seen() -> None:
    document = a_set(3).signed(KEY)
    for place in range(0, len(document), 7):
        changed = document[:place] + bytes([document[place] ^ 1]) + document[place + 1 :]
        try:
            same = read_manifest(changed, a_set(3).own_key, SIGNERS) == a_set(3)
        except PermanentError:
            continue
        assert same  # white space


def test_a_manifest_of_another_version_is_named() -> None:
    body = {**json.loads(a_set(3).to_bytes()), "format": 2}
    with pytest.raises(PermanentError, match="format 2; this version reads 1"):
        read_manifest(json.dumps(body).encode(), "here", SIGNERS)


def test_a_name_says_when() -> None:
    at = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)
    identity = new_identity("nats", at, "00ff00")
    assert identity == "nats-20261123T010203Z-00ff00"
    assert begun_of(identity) == at
    assert begun_of("something-else") is None


GENUINE = a_set(3)
ARTEFACT = Artefact(
    name="database/isa.dump.zst.age", unit="database isa", format="pg_dump custom", plain_size=1,
    plain_sha256="0" * 64, stored_size=1, stored_sha256="0" * 64, part_size=1,
)  # fmt: skip
ELSEWHERE = {
    "another environment": GENUINE.own_key.replace("test/", "staging/", 1),
    "another component": GENUINE.own_key.replace("/redis/", "/nats/", 1),
    "another set": GENUINE.own_key.replace(GENUINE.id, "redis-20260101T010000Z-000000"),
}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_a_manifest_that_was_copied_somewhere_else_is_refused(where: str) -> None:
    with pytest.raises(PermanentError, match="moved or copied"):
        read_manifest(GENUINE.signed(KEY), ELSEWHERE[where], SIGNERS)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"begun": GENUINE.begun + timedelta(days=1)}, "its id names another time"),
        ({"ended": GENUINE.begun - timedelta(seconds=1)}, "ended before it began"),
    ],
)
def test_a_manifest_whose_times_disagree_is_refused(change: dict[str, Any], reason: str) -> None:
    forged = GENUINE.model_copy(update=change)
    with pytest.raises(PermanentError, match=reason):
        read_manifest(forged.signed(KEY), forged.own_key, SIGNERS)


def test_a_manifest_of_the_future_is_refused() -> None:
    now = GENUINE.begun - timedelta(hours=2)
    with pytest.raises(PermanentError, match="in the future"):
        read_manifest(GENUINE.signed(KEY), GENUINE.own_key, SIGNERS, now)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../other/base.tar",
        "a/../b",
        "a//b",
        "a/./b",
        "",
        "a\nb",
        "a\x00",
        "a\\b",
        "x" * 801,
    ],
)
def test_an_artefact_whose_name_is_no_plain_path_below_the_set_is_refused(name: str) -> None:
    body = {**json.loads(ARTEFACT.model_dump_json()), "name": name}
    with pytest.raises(ValidationError):
        Artefact.model_validate(body)
