"""What a backup needs before it touches an engine: recipients, spool, object store, and the signing key."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pyrage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from archive.backup.manifest import Capabilities
from archive.backup.selftest import self_test
from archive.signing import out_of_date, public_half, read_signing_key
from archive.streams.spool import prepare_spool
from cluster.credentials import read_secret
from errors import ConfigurationError, Fault, PermanentError
from operations.environment.environment import Environment


def check_store(environment: Environment) -> Capabilities:
    """Test everything that a backup needs, except the engine and the signing key.

    Raises:
        ConfigurationError: a recipient is invalid.
        PermanentError, TemporaryError: with what to do.
    """
    backup = environment.settings.backup
    for recipient in backup.age_recipients:
        try:
            pyrage.x25519.Recipient.from_str(recipient)
        except pyrage.RecipientError as exc:
            raise ConfigurationError(
                [
                    Fault(
                        "backup.age_recipients",
                        f"{recipient[:12]}… is not an age public key: {exc}",
                        "age-keygen makes a pair",
                    )
                ]
            ) from exc
    _try_spool(backup.spool)
    capabilities = self_test(environment.store, environment.settings.environment)
    if backup.object_lock_days and not capabilities.object_lock:
        raise PermanentError(
            f"backup.object_lock_days is {backup.object_lock_days}, but {environment.store.address} has no object "
            "lock: it can only be enabled when a bucket is created"
        )
    return capabilities


def read_worker_key(environment: Environment) -> Ed25519PrivateKey:
    """The backup workers' signing key.

    Raises:
        PermanentError: it does not exist, or is invalid.
    """
    where, name = (
        environment.settings.kubernetes.control_namespace,
        environment.settings.backup.signing_secret,
    )
    text = (read_secret(environment.kube, where, name) or {}).get("key", "")
    return read_signing_key(text, f"Secret {where}/{name}, key `key`,")


def valid_worker_key(environment: Environment) -> Ed25519PrivateKey:
    """The same, if manifests that it signs now will be accepted.

    Raises:
        PermanentError: it does not exist, or `backup.signers` does not accept it now.
    """
    key, now = read_worker_key(environment), datetime.now(UTC)
    public = public_half(key)
    signer = next(
        (trusted for trusted in environment.settings.backup.signers if trusted.key == public), None
    )
    if signer is None or out_of_date(signer, now):
        raise PermanentError(
            "no backup would count: backup.signers does not contain the workers' current key: add "
            f"{{key: {public}}} (Secret {environment.settings.backup.signing_secret})"
        )
    return key


def _try_spool(directory: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=prepare_spool(directory)) as file:
            file.write(b"x")
            file.flush()
    except OSError as exc:
        raise PermanentError(
            f"backup.spool {directory} cannot be written: {exc.strerror or exc}"
        ) from exc
