"""What a bucket and the rights hold, counted and digested while it is read.

Version ids and times are not part of it: another S3 server gives its own. The order of a key's versions is.
"""

from __future__ import annotations

import io
import json
import zipfile
from hashlib import blake2b
from typing import Any

from archive.manifest import Measure
from components.digest import Digest, few, part
from components.minio.versions import Version

# Counted by itself: a retention that is over when it is restored cannot be set again.
LOCK = ("ObjectLockMode", "ObjectLockRetainUntilDate")
APART = ("StorageClass", *LOCK)


class BucketMeasure:
    """Counts and digests the versions of one bucket.

    Args:
        bucket: its name.

    Attributes:
        bucket: its name.
        bytes: of all versions.
    """

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self._unit = f"bucket {bucket}"
        self._found = {"versions": Digest(), "delete markers": Digest(), "retentions": Digest()}
        self.bytes = 0

    def add(self, version: Version) -> None:
        """Take one version in."""
        kept = {k: str(v) for k, v in version.headers.items() if k not in APART}
        known = (version.key, version.ordinal, version.size, version.content, kept, version.headers.get("Metadata"),
                 version.tags)  # fmt: skip
        self._found["delete markers" if version.marker else "versions"].add_document(known)
        self.bytes += version.size
        lock = [str(version.headers.get(name, "")) for name in LOCK]
        if any(lock):
            self._found["retentions"].add_document((version.key, version.ordinal, *lock))

    def measures(self) -> list[Measure]:
        """What has been taken in."""
        return [digest.measure(self._unit, item) for item, digest in self._found.items()]


def measure_rights(export: bytes) -> list[Measure]:
    """Measure an IAM export: names and documents, without secrets.

    Args:
        export: the zip of `mc admin cluster iam export`.
    """
    found = []
    with zipfile.ZipFile(io.BytesIO(export)) as archive:
        for name in sorted(archive.namelist()):
            document = json.loads(archive.read(name) or b"null") or {}
            kind = name.rpartition("/")[2].removesuffix(".json")
            kept = {entry: _public(value) for entry, value in document.items()}
            text = json.dumps(kept, sort_keys=True).encode()
            digest = blake2b(text, digest_size=16).hexdigest() if kept else ""
            names = few({entry: part(value) for entry, value in kept.items()})
            found.append(
                Measure(
                    unit="rights",
                    item=kind,
                    count=len(kept),
                    digest=digest,
                    origin="source",
                    names=names,
                )
            )
    return found


def _public(value: Any) -> Any:
    """Without what is secret, or the server's own note of time."""
    if isinstance(value, list):  # MinIO gives a policy's actions in another order every time
        return sorted(
            (_public(inner) for inner in value), key=lambda inner: json.dumps(inner, sort_keys=True)
        )
    if not isinstance(value, dict):
        return value
    hidden = ("secretKey", "sessionToken", "updatedAt", "UpdateDate", "CreateDate")
    return {name: _public(inner) for name, inner in value.items() if name not in hidden}
