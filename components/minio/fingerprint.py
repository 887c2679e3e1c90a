"""What a bucket holds, counted and digested while it is read.

Version ids and times are not part of it: another S3 server gives its own. The order of a key's versions is.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from archive.manifest import Measure
from components.digest import Digest
from components.minio.versions import Version

# Counted by itself: a retention that is over when it is restored cannot be set again.
LOCK = ("ObjectLockMode", "ObjectLockRetainUntilDate")
APART = ("StorageClass", *LOCK)


def retained_until(text: str) -> datetime:
    """End of a retention in whole seconds, never earlier than it was.

    MinIO keeps milliseconds of those that a bucket's default rule gave, and S3's clients send whole seconds.

    Args:
        text: as a backup or a measure has it.
    """
    until = datetime.fromisoformat(text)
    return until.replace(microsecond=0) + timedelta(seconds=1 if until.microsecond else 0)


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
            lock[1] = str(retained_until(lock[1])) if lock[1] else ""
            self._found["retentions"].add_document((version.key, version.ordinal, *lock))

    def measures(self) -> list[Measure]:
        """What has been taken in."""
        return [digest.measure(self._unit, item) for item, digest in self._found.items()]
