"""Whose manifests count: those that a backup worker signed, unchanged, while its key counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from archive.backup.manifest import read_manifest
from archive.signing import public_half, read_signing_key
from config.sections.backups import BackupSigner
from errors import PermanentError

from .test_retention import KEY, SIGNERS, a_set

GENUINE = a_set(3)
STRANGER = Ed25519PrivateKey.generate()


def pem(key: Ed25519PrivateKey | X25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def forged(**changes: object) -> bytes:
    """A genuine signature over a manifest that somebody else has changed, with a hash that fits."""
    body = GENUINE.model_copy(update=changes)
    signed = json.loads(GENUINE.signed(KEY))
    return json.dumps(
        json.loads(body.to_bytes()) | {name: signed[name] for name in ("signer", "signature")}
    ).encode()


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "unsigned": (GENUINE.to_bytes, "not signed"),
    "signed by a stranger": (lambda: GENUINE.signed(STRANGER), "not in backup.signers"),
    "changed": (lambda: forged(cluster="another"), "changed after it was signed"),
    "with other artefacts": (
        lambda: forged(missing=("a table",), outcome="partial"),
        "changed after it was signed",
    ),
    "with garbage for a signature": (
        lambda: json.dumps(json.loads(GENUINE.signed(KEY)) | {"signature": "zz"}).encode(),
        "changed after it was signed",
    ),
}


@pytest.mark.parametrize("how", REFUSED)
def test_a_manifest_that_no_backup_worker_signed_is_refused(how: str) -> None:
    document, reason = REFUSED[how]
    with pytest.raises(PermanentError, match=reason):
        read_manifest(document(), GENUINE.own_key, SIGNERS)


@pytest.mark.parametrize(
    ("dates", "reason"),
    [
        ({"since": GENUINE.begun + timedelta(seconds=1)}, "is valid from"),
        ({"until": GENUINE.begun - timedelta(seconds=1)}, "was valid until"),
    ],
)
def test_a_key_counts_for_the_time_that_the_settings_say(
    dates: dict[str, object], reason: str
) -> None:
    rotated = BackupSigner.model_validate({"key": public_half(KEY), **dates})
    with pytest.raises(PermanentError, match=reason):
        read_manifest(GENUINE.signed(KEY), GENUINE.own_key, [rotated])


def test_backups_of_the_former_key_are_read_beside_those_of_the_new_one() -> None:
    turn = GENUINE.begun + timedelta(days=1)
    signers = [
        BackupSigner(key=public_half(KEY), until=turn),
        BackupSigner(key=public_half(STRANGER), since=turn),
    ]
    later = a_set(9)
    assert read_manifest(GENUINE.signed(KEY), GENUINE.own_key, signers) == GENUINE
    assert read_manifest(later.signed(STRANGER), later.own_key, signers) == later


@pytest.mark.parametrize(
    "text",
    ["", "no key", pem(X25519PrivateKey.generate())],
    ids=["nothing", "garbage", "of another kind"],
)
def test_what_is_no_signing_key_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(PermanentError, match="no Ed25519 private key") as refused:
        read_signing_key(text, "Secret isa-backup-signing")
    assert not text or text not in str(refused.value)


def test_a_key_that_openssl_makes_is_read() -> None:
    assert public_half(read_signing_key(pem(KEY), "here")) == public_half(KEY)
