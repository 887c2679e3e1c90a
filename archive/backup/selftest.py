"""Tests, before a backup touches any engine, that the store does what backups need, and which features it supports.

Third-party S3 servers silently differ. So nothing is taken from their documentation: each feature is tried with objects
under `ENVIRONMENT/self-test/`, which are deleted afterwards.
"""

from __future__ import annotations

import hashlib
import secrets

from archive.backup.manifest import Capabilities
from archive.object_store.store import Changed, Refused, Store, Unsupported
from errors import IsaError, PermanentError

SMALLEST_PART = 5 << 20  # S3's limit for all parts but the last one
SKEW_SECONDS = 60  # servers refuse signatures at 15 min; retention and object lock use days


def self_test(store: Store, environment: str) -> Capabilities:
    """Put, read, list and delete objects, whole and in parts.

    Args:
        store: the bucket.
        environment: name; its part of the bucket is used.

    Raises:
        PermanentError: the store lacks a feature that backups need, or the clocks differ. The message has what it did.
        TemporaryError: the store does not answer.
    """
    prefix = f"{environment}/self-test/{secrets.token_hex(6)}"
    body = secrets.token_bytes(1000)
    try:
        store.put(f"{prefix}/whole", body)
        _expect(store, f"{prefix}/whole", body)
        _parts(store, f"{prefix}/parts")
        listed = [(entry.key, entry.modified) for entry in store.list(prefix)]
        if [key for key, _ in listed] != [f"{prefix}/parts", f"{prefix}/whole"]:
            raise PermanentError(f"{store.where(prefix)} does not list what was just written")
        skew = store.skew_seconds()
        if abs(skew) > SKEW_SECONDS:
            raise PermanentError(
                f"{store.where(prefix)}: its clock differs from ours by {skew:.0f} s: synchronise both with NTP, "
                "because signatures and retention depend on the time"
            )
        capabilities = Capabilities(
            conditional_put=_refuses_overwrite(store, f"{prefix}/whole", body),
            checksums=store.refuses_wrong_checksum(f"{prefix}/checksum"),
            versioning=store.versioned,
            object_lock=store.lockable,
        )
    finally:
        may_delete = _clean(store, prefix)
    if may_delete and any(store.list(prefix)):
        raise PermanentError(f"{store.where(prefix)} still lists objects that were deleted")
    return capabilities


def _parts(store: Store, key: str) -> None:
    first_part, last_part = (
        secrets.token_bytes(1 << 10) * (SMALLEST_PART >> 10),
        secrets.token_bytes(1000),
    )
    upload = store.begin(key)
    etags = [
        store.put_part(key, upload, number, part)
        for number, part in enumerate((first_part, last_part), 1)
    ]
    store.complete(key, upload, etags, len(first_part) + len(last_part))
    _expect(store, key, first_part + last_part)


def _expect(store: Store, key: str, body: bytes) -> None:
    content = store.get(key)
    if content != body:
        raise PermanentError(
            f"{store.where(key)} returned {len(content)} bytes with SHA-256 "
            f"{hashlib.sha256(content).hexdigest()[:12]}… instead of the {len(body)} bytes that were written: it does "
            "not support how they were sent"
        )


def _refuses_overwrite(store: Store, key: str, body: bytes) -> bool:
    try:
        store.put(key, body, only_new=True)
    except Changed:
        return True
    except Unsupported:
        pass
    return False


def _clean(store: Store, prefix: str) -> bool:
    """Delete the objects; False if this store key has no permission for that, which is fine: retention's key has."""
    try:
        for pending in store.pending(prefix):
            store.abort(pending.key, pending.identity)
        for entry in list(store.list(prefix)):
            store.purge(entry.key)
    except Refused:
        return False
    except IsaError:  # the first error is more important; garbage collection removes the rest
        pass
    return True
