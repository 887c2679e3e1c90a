"""A set, or a part of one, that is given up."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from archive.backup.encryption import Encrypted
from archive.backup.writer import SetWriter
from archive.object_store.entries import Entry
from archive.object_store.store import Refused
from errors import PermanentError, TemporaryError

KEY = Ed25519PrivateKey.generate()
PREFIX = "there/postgresql/one/"


class Bucket:
    """Objects by key; the store goes away after so many deletions."""

    def __init__(self, names: tuple[str, ...], deletions: int) -> None:
        self.keys = {PREFIX + name for name in names}
        self.deletions = deletions

    def list(self, prefix: str) -> list[Entry]:
        return [Entry(key, 1, datetime.now(UTC)) for key in sorted(self.keys)]

    def purge(self, key: str) -> None:
        if self.deletions == 0:
            raise TemporaryError("away")
        self.deletions -= 1
        self.keys.discard(key)


def test_a_set_that_is_given_up_is_never_listed_without_its_parts() -> None:
    names = ("base.tar.zst.age", "globals.sql.zst.age", "manifest.json")
    for deletions in range(len(names) + 2):
        bucket = Bucket(names, deletions)
        SetWriter(cast(Any, bucket), PREFIX, (), KEY, Path()).discard()
        listed = PREFIX + "manifest.json" in bucket.keys
        assert not listed or len(bucket.keys) == len(names)
    assert not bucket.keys


def test_a_key_that_may_not_delete_leaves_all_of_it_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Undeletable(Bucket):
        def purge(self, key: str) -> None:
            raise Refused(f"delete_object {key}: AccessDenied")

    bucket = Undeletable(("base.tar.zst.age", "manifest.json"), 0)
    SetWriter(cast(Any, bucket), PREFIX, (), KEY, Path()).discard()
    assert len(bucket.keys) == 2
    (said,) = caplog.messages
    assert "AccessDenied; the stored objects stay until retention removes them" in said


def test_what_is_dropped_of_a_set_is_neither_in_it_nor_in_the_store() -> None:
    bucket = Bucket(("a/x", "a/y", "b/x"), 9)
    writer = SetWriter(cast(Any, bucket), PREFIX, (), KEY, Path())
    sealed = Encrypted(1, "0" * 64, 1, "0" * 64)
    for name in ("a/x", "a/y", "b/x"):
        writer._note(name, "unit", "form", sealed, 8, sealed=False)
    writer.drop("a/")
    assert [one.name for one in writer.artefacts] == ["b/x"]
    assert bucket.keys == {PREFIX + "b/x"}


def test_a_document_is_what_a_reader_gets_back_or_is_not_stored() -> None:
    writer = SetWriter(cast(Any, None), PREFIX, (), KEY, Path())
    with pytest.raises(PermanentError, match=r"settings\.json.*datetime"):
        writer.add_json("settings.json", "settings", {"begun": datetime.now(UTC)})
