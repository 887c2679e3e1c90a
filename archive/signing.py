"""Says whose word counts: a backup worker signs each manifest, the verify pool each verdict. Others are refused.

A manifest's own hash is no protection: whoever can write to the bucket can compute it, and the recipients are public.
The signature is Ed25519 (RFC 8032) over the canonical manifest: id, environment, cluster, component, times, needed
backups and the hash of every artefact are inside. The private key is a PEM file as `openssl genpkey -algorithm ed25519`
makes it.
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

from config.backups import BackupSigner
from config.models import Settings
from errors import PermanentError

PURPOSE = b"isa-cloud manifest 1\n"  # a signature of something else is none of a manifest
SIGNER, SIGNATURE = "signer", "signature"


@dataclass(frozen=True)
class Trust:
    """Whose word counts in an environment.

    Attributes:
        backups: who may sign manifests.
        proofs: public keys, in hexadecimal, of who may sign verdicts.
    """

    backups: tuple[BackupSigner, ...] = ()
    proofs: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Trust:
        """What the settings say."""
        return cls(settings.backup.signers, settings.verify.signers)


def read_signing_key(pem: str, where: str) -> Ed25519PrivateKey:
    """Read a private key.

    Args:
        pem: PKCS#8 in PEM.
        where: it came from, for messages.

    Raises:
        PermanentError: it is none.
    """
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError):  # their words could quote the key
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise PermanentError(
            f"{where} has no Ed25519 private key in PEM: `openssl genpkey -algorithm ed25519` makes one"
        ) from None
    return key


def public_half(key: Ed25519PrivateKey) -> str:
    """Public key, in hexadecimal, for `backup.signers`."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def canonical(body: dict[str, Any]) -> bytes:
    """The one way to write a document, for what is hashed or signed."""
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def sign(body: dict[str, Any], key: Ed25519PrivateKey) -> dict[str, str]:
    """The two fields that a signed manifest has beside its own.

    Args:
        body: of the manifest, without them.
        key: of the backup worker.
    """
    return {SIGNER: public_half(key), SIGNATURE: key.sign(PURPOSE + canonical(body)).hex()}


def check_signature(
    content: bytes, signed: dict[str, Any], signers: Collection[BackupSigner]
) -> BackupSigner:
    """Who signed a manifest.

    Args:
        content: what was signed, canonical.
        signed: signer and signature, as they were stored; empty if they were not.
        signers: whose signature counts.

    Raises:
        PermanentError: nobody whose signature counts did.
    """
    key, signature = str(signed.get(SIGNER, "")), str(signed.get(SIGNATURE, ""))
    if not signers:
        raise PermanentError(
            "backup.signers is empty: nobody's signature counts (`isa backup signer` prints the worker's key)"
        )
    if not key or not signature:
        raise PermanentError("it is not signed: no backup worker wrote it")
    signer = next((one for one in signers if one.key == key), None)
    if signer is None:
        raise PermanentError(f"it is signed by {key[:16]}…, which is not in backup.signers")
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(
            bytes.fromhex(signature), PURPOSE + content
        )
    except (InvalidSignature, ValueError) as exc:
        raise PermanentError(
            "its signature does not fit: it was changed after it was signed"
        ) from exc
    return signer


def out_of_date(signer: BackupSigner, begun: datetime) -> str:
    """Why a key does not count for a backup that began at a time; "" if it does."""
    if signer.since is not None and begun < signer.since:
        return f"its key {signer.key[:16]}… counts from {signer.since:%Y-%m-%d %H:%M} on"
    if signer.until is not None and begun > signer.until:
        return f"its key {signer.key[:16]}… counted until {signer.until:%Y-%m-%d %H:%M}"
    return ""
