import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from archive.manifest import Manifest, begun_of, new_identity, read_manifest
from errors import PermanentError

from .test_retention import a_set

SCHEMA = Path(__file__).resolve().parents[3] / "docs/manifest.schema.json"


def test_the_schema_is_up_to_date() -> None:
    assert json.loads(SCHEMA.read_text()) == Manifest.model_json_schema(), (
        "python -m archive.manifest > docs/manifest.schema.json"
    )


def test_what_was_written_is_read() -> None:
    manifest = a_set(3, missing=("a table",), outcome="partial")
    assert read_manifest(manifest.to_bytes(), "here") == manifest


def test_a_bit_that_flipped_anywhere_is_seen() -> None:
    document = a_set(3).to_bytes()
    for place in range(0, len(document), 7):
        changed = document[:place] + bytes([document[place] ^ 1]) + document[place + 1 :]
        try:
            same = read_manifest(changed, "here") == a_set(3)
        except PermanentError:
            continue
        assert same  # white space


def test_a_manifest_of_another_version_is_named() -> None:
    body = {**json.loads(a_set(3).to_bytes()), "format": 2}
    with pytest.raises(PermanentError, match="format 2; this version reads 1"):
        read_manifest(json.dumps(body).encode(), "here")


def test_a_name_says_when() -> None:
    at = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)
    identity = new_identity("nats", at, "00ff00")
    assert identity == "nats-20261123T010203Z-00ff00"
    assert begun_of(identity) == at
    assert begun_of("something-else") is None
