"""Signatures: a backup worker signs each manifest, the verify pool each verdict. Other signers are refused.

A manifest's own hash is no protection: anyone with write access to the bucket can compute it, and the recipients are
public. The signature is Ed25519 (RFC 8032) over the canonical manifest: id, environment, cluster, component, times,
needed backups and the hash of every artefact are inside. The private key is a PEM file as `openssl genpkey -algorithm
ed25519` creates it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from config.models import Settings
from config.sections.backups import BackupSigner
from errors import PermanentError

PURPOSE = b"isa-cloud manifest 1\n"  # so that a signature for another purpose cannot be used for a manifest
SIGNER, SIGNATURE = "signer", "signature"


@dataclass(frozen=True)
class Trust:
    """The trusted signers of an environment.

    Attributes:
        backups: the signers whose manifests count.
        proofs: public keys, in hexadecimal, whose verdicts count.
    """

    backups: tuple[BackupSigner, ...] = ()
    proofs: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Trust:
        """Read them from the settings."""
        return cls(settings.backup.signers, settings.verify.signers)


def read_signing_key(pem: str, where: str) -> Ed25519PrivateKey:
    """Read a private key.

    Args:
        pem: PKCS#8 in PEM.
        where: source of the key, for messages.

    Raises:
        PermanentError: it is not an Ed25519 private key.
    """
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError):  # their words could quote the key
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise PermanentError(
            f"{where} has no Ed25519 private key in PEM format: create one with `openssl genpkey -algorithm ed25519`"
        ) from None
    return key


def public_half(key: Ed25519PrivateKey) -> str:
    """Public key, in hexadecimal, for `backup.signers`."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def canonical(body: dict[str, Any]) -> bytes:
    """Return the canonical form of a document, for hashing and signing."""
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def sign(body: dict[str, Any], key: Ed25519PrivateKey, purpose: bytes = PURPOSE) -> dict[str, str]:
    """Return the two additional fields of a signed manifest.

    Args:
        body: the manifest without these fields.
        key: the backup worker's key.
        purpose: kind of document; a signature is valid for one kind only.
    """
    return {SIGNER: public_half(key), SIGNATURE: key.sign(purpose + canonical(body)).hex()}


def check_signature(
    content: bytes,
    signed: dict[str, Any],
    signers: Collection[BackupSigner],
    purpose: bytes = PURPOSE,
) -> BackupSigner:
    """Return who signed a manifest.

    Args:
        content: what was signed, canonical.
        signed: signer and signature, as stored; empty if it is not signed.
        signers: trusted signers.
        purpose: what kind of document it has to be.

    Raises:
        PermanentError: no trusted signer signed it.
    """
    key, signature = str(signed.get(SIGNER, "")), str(signed.get(SIGNATURE, ""))
    if not signers:
        raise PermanentError(
            "backup.signers is empty: nobody's signature counts (`isa backup signer` prints the worker's key)"
        )
    if not key or not signature:
        raise PermanentError("it is not signed: no backup worker wrote it")
    signer = next((signer for signer in signers if signer.key == key), None)
    if signer is None:
        raise PermanentError(f"it is signed by {key[:16]}…, which is not in backup.signers")
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(
            bytes.fromhex(signature), purpose + content
        )
    except (InvalidSignature, ValueError) as exc:
        raise PermanentError(
            "its signature does not match: it was changed after it was signed"
        ) from exc
    return signer


def out_of_date(signer: BackupSigner, begun: datetime) -> str:
    """Return why a key is not valid for a backup that began at a time; "" if it is."""
    if signer.since is not None and begun < signer.since:
        return f"its key {signer.key[:16]}… is valid from {signer.since:%Y-%m-%d %H:%M}"
    if signer.until is not None and begun > signer.until:
        return f"its key {signer.key[:16]}… was valid until {signer.until:%Y-%m-%d %H:%M}"
    return ""
