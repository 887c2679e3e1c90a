"""Whose names of WAL count: signed by a backup worker for this place, unchanged."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from archive.signing import public_half
from archive.wal.names import (
    MAXIMUM_BYTES,
    TimelineHistory,
    WalObject,
    lsn_number,
    lsn_text,
    read_name,
)
from config.sections.backups import BackupSigner
from errors import PermanentError

KEY, STRANGER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
SIGNERS = (BackupSigner(key=public_half(KEY)),)
NOW = datetime(2026, 11, 30, 16, 0, 0, 123456, tzinfo=UTC)
SOME = WalObject(
    "test", "7412345678901234567", 2, 0x1_02000000, 0x1_02000028, "ab" * 32, "cd" * 32, NOW, NOW
)
HISTORY = TimelineHistory("test", "7412345678901234567", 2, 1, 0x1_02000010, "ef" * 32, NOW)


@pytest.mark.parametrize(
    "one", [SOME, replace(SOME, before="", covers=None), HISTORY], ids=["wal", "begins", "history"]
)
def test_a_name_is_read_as_it_was_signed(one: WalObject | TimelineHistory) -> None:
    key = one.signed(KEY)
    assert read_name(key, "test", SIGNERS, NOW) == replace(one, key=key)
    assert len(key) < 1024  # S3's limit of a key
    assert max(map(len, key.split("/"))) <= 255  # a file name's


def test_the_range_is_legible_in_the_name() -> None:
    assert (
        "test/postgresql/wal/7412345678901234567/00000002/0000000102000000-0000000102000028/2026"
        in SOME.signed(KEY)
    )


@pytest.mark.parametrize(
    "changed",
    [
        ("/00000002/", "/00000001/"),
        ("7412345678901234567", "7412345678901234568"),
        ("0000000102000028", "0000000102000029"),
        ("20261130T160000.123456Z.", "20261130T160001.123456Z."),
        (".q6ur", ".q6us"),
    ],
    ids=["timeline", "system", "end", "time", "state"],
)
def test_a_name_that_was_changed_is_refused(changed: tuple[str, str]) -> None:
    key = SOME.signed(KEY)
    assert changed[0] in key
    with pytest.raises(PermanentError, match="changed after it was signed"):
        read_name(key.replace(*changed), "test", SIGNERS, NOW)


def test_wal_of_another_environment_is_refused() -> None:
    key = replace(SOME, environment="staging").signed(KEY)
    with pytest.raises(PermanentError, match="not a name of WAL"):
        read_name(key, "test", SIGNERS, NOW)
    with pytest.raises(PermanentError, match="changed after it was signed"):
        read_name(key.replace("staging/", "test/"), "test", SIGNERS, NOW)


def test_wal_that_a_stranger_signed_is_refused() -> None:
    with pytest.raises(PermanentError, match=r"not in backup\.signers"):
        read_name(SOME.signed(STRANGER), "test", SIGNERS, NOW)
    with pytest.raises(PermanentError, match=r"backup\.signers is empty"):
        read_name(SOME.signed(KEY), "test", (), NOW)


def test_wal_that_was_signed_when_the_key_did_not_count_is_refused() -> None:
    signer = BackupSigner(key=public_half(KEY), until=NOW - timedelta(seconds=1))
    with pytest.raises(PermanentError, match="was valid until"):
        read_name(SOME.signed(KEY), "test", (signer,), NOW)


def test_wal_of_the_future_is_refused() -> None:
    with pytest.raises(PermanentError, match="in the future"):
        read_name(SOME.signed(KEY), "test", SIGNERS, NOW - timedelta(hours=2))


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (replace(SOME, end=SOME.start), "has 0 bytes"),
        (replace(SOME, end=SOME.start - 1), "has -1 bytes"),
        (replace(SOME, end=SOME.start + MAXIMUM_BYTES + 1), "16777217 bytes"),
        (replace(HISTORY, parent=2), "cannot begin on timeline 2"),
    ],
)
def test_a_signed_name_that_makes_no_sense_is_refused(
    one: WalObject | TimelineHistory, reason: str
) -> None:
    with pytest.raises(PermanentError, match=reason):
        read_name(one.signed(KEY), "test", SIGNERS, NOW)


@pytest.mark.parametrize(
    "key",
    ["", "test/postgresql/wal/", "test/postgresql/wal/1/00000001/x", "test/redis/wal/1/2/3", "é"],
)
def test_another_name_is_refused(key: str) -> None:
    with pytest.raises(PermanentError, match="not a name of WAL"):
        read_name(key, "test", SIGNERS, NOW)


def test_a_signature_in_another_spelling_is_refused() -> None:
    key = SOME.signed(KEY).removesuffix(".zst.age")
    last = key[-1]  # its lower four bits mean nothing: 64 bytes are 86 characters
    other = chr(ord(last) + 1)
    with pytest.raises(PermanentError, match=r"canonical|changed|not a name"):
        read_name(f"{key[:-1]}{other}.zst.age", "test", SIGNERS, NOW)


def test_lsns_are_written_as_postgresql_writes_them() -> None:
    assert lsn_text(0x1_02000028) == "1/2000028"
    assert lsn_number("1/2000028") == 0x1_02000028
    with pytest.raises(ValueError, match="not an LSN"):
        lsn_number("1/2/3")
