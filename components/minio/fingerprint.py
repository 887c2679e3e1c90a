"""Counts and digests a bucket's versions while they are read.

Version ids and times are left out, because a restore creates new ones. The order of a key's versions is part of the
digest.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from archive.backup.manifest import Measure
from components.digest import Digest
from components.minio.objects.versions import Version

# Counted separately, because a retention that has ended cannot be set again by a restore.
LOCK = ("ObjectLockMode", "ObjectLockRetainUntilDate")
APART = ("StorageClass", *LOCK)


def retained_until(text: str) -> datetime:
    """The end of a retention, rounded up to a whole second.

    A bucket's default rule sets milliseconds, but S3 clients can send whole seconds only.

    Args:
        text: the end as text.
    """
    until = datetime.fromisoformat(text)
    return until.replace(microsecond=0) + timedelta(seconds=1 if until.microsecond else 0)


class BucketMeasure:
    """Counts and digests the versions of one bucket.

    Args:
        bucket: its name.

    Attributes:
        bucket: its name.
        bytes: size of all versions.
    """

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self._unit = f"bucket {bucket}"
        self._digests = {"versions": Digest(), "delete markers": Digest(), "retentions": Digest()}
        self.bytes = 0

    def add(self, version: Version) -> None:
        """Add one version."""
        headers = {k: str(v) for k, v in version.headers.items() if k not in APART}
        document = (
            version.key,
            version.ordinal,
            version.size,
            version.content,
            headers,
            version.headers.get("Metadata"),
            version.tags,
        )
        self._digests["delete markers" if version.marker else "versions"].add_document(document)
        self.bytes += version.size
        lock = [str(version.headers.get(name, "")) for name in LOCK]
        if any(lock):
            lock[1] = str(retained_until(lock[1])) if lock[1] else ""
            self._digests["retentions"].add_document((version.key, version.ordinal, *lock))

    def measures(self) -> list[Measure]:
        """The measures of the versions added so far."""
        return [digest.measure(self._unit, item) for item, digest in self._digests.items()]
