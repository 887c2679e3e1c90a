"""Entries of a bucket listing: objects, their versions, and incomplete uploads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Entry:
    """An object in a listing.

    Attributes:
        key: its name.
        size: bytes.
        modified: when it was written, by the server's clock.
    """

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class Version:
    """One version of an object, or its delete marker.

    Attributes:
        key: the object's name.
        identity: of the version; "" in a bucket without versions.
        size: bytes; 0 for a delete marker.
        modified: when it was written, by the server's clock.
        current: whether reading the key returns it.
        marker: whether it is a delete marker: S3 keeps the versions below it.
    """

    key: str
    identity: str
    size: int
    modified: datetime
    current: bool = True
    marker: bool = False


@dataclass(frozen=True)
class PendingUpload:
    """A multipart upload that was neither completed nor aborted.

    Attributes:
        key: of the object that it would become.
        identity: of the upload.
        begun: when, by the server's clock.
    """

    key: str
    identity: str
    begun: datetime
