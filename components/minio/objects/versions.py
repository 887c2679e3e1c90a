"""All versions of a bucket's objects as one tar, with a line of metadata for each version.

`mc mirror` and similar tools copy only current versions. This tar has all versions, oldest first, including delete
markers, each with metadata, tags, retention and legal hold. Writing them in this order gives the same history.

Bytes that an earlier backup has are not read again: a version never changes. Its tags and retention can change, so they
are read every time.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from components.http import NoProgress
from errors import TemporaryError

READERS = 8
# Objects up to this size are fetched ahead, as a whole. Larger ones are streamed.
WHOLE_BYTES = 2 << 20
PIECE_BYTES = 1 << 20
GONE = ("NoSuchKey", "NoSuchVersion", "404", "MethodNotAllowed", "405")
# The answer for a version that a client encrypted with its own key (SSE-C). Only the message distinguishes it from
# other bad requests (ErrSSEEncryptedObject in minio/minio, cmd/api-errors.go; AWS has the same).
CLIENTS_KEY = ("InvalidRequest", "stored using a form of Server Side Encryption")
SSE_C = "encrypted with client keys (SSE-C)"
# The server is busy. This is not about one object, so the whole backup is tried again later.
BUSY = ("SlowDown", "TooManyRequests", "RequestTimeout", "ServiceUnavailable")
NO_BUCKET = "NoSuchBucket"
AFTER_ALL = chr(0x10FFFF) * 2
HEADERS = (
    "ContentType", "CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "Metadata",
    "ObjectLockMode", "ObjectLockRetainUntilDate", "ObjectLockLegalHoldStatus", "StorageClass",
    "ServerSideEncryption", "WebsiteRedirectLocation", "Expires",
)  # fmt: skip


@dataclass
class Version:
    """One version of an object.

    Attributes:
        key: name of the object.
        identity: version id; `null` in a bucket without versioning.
        ordinal: position among the versions of its key; 0 is the oldest.
        marker: it is a delete marker.
        etag: the ETag that S3 returned.
        size: bytes.
        modified: when it was written.
        headers: content type, metadata, retention and so on, with boto3's names.
        tags: tags of this version.
        content: SHA-256 of the bytes, in hexadecimal.
        held: id of the earlier backup that has the bytes; "" if this backup has them.
        file: its name in the tar.
    """

    key: str
    identity: str
    ordinal: int
    marker: bool
    etag: str = ""
    size: int = 0
    modified: str = ""
    headers: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    content: str = ""
    held: str = ""
    file: str = ""


def list_versions(client: Any, bucket: str) -> Iterator[Version]:
    """All versions of a bucket: keys in order, each key's oldest version first."""
    for _, entries in groupby(_entries(client, bucket), key=lambda entry: entry["Key"]):
        newest_first = list(entries)
        for ordinal, entry in enumerate(reversed(newest_first)):
            yield Version(
                key=entry["Key"],
                identity=str(entry["VersionId"]),
                ordinal=ordinal,
                marker="Size" not in entry,
                etag=str(entry.get("ETag", "")).strip('"'),
                size=int(entry.get("Size", 0)),
                modified=entry["LastModified"].isoformat(),
            )


class Among:
    """Distinguishes a backup's versions from versions that clients wrote after the restore.

    Args:
        stored: the backup's versions, ordered by key.
    """

    def __init__(self, stored: Iterable[Version]) -> None:
        self._groups = groupby(stored, key=lambda version: version.key)
        self._key, self._count = "", 0

    def __call__(self, version: Version) -> bool:
        """Whether a version is in the backup. Call it with versions in order of their keys."""
        while self._key < version.key:
            key, versions = next(self._groups, (AFTER_ALL, iter(())))
            self._key, self._count = key, sum(1 for _ in versions)
        return version.key == self._key and version.ordinal < self._count


class Unlisted(TemporaryError):
    """A bucket cannot be read.

    Attributes:
        gone: the bucket no longer exists.
    """

    def __init__(self, bucket: str, exc: Exception) -> None:
        super().__init__(f"bucket {bucket} cannot be read: {exc}")
        self.gone = isinstance(exc, ClientError) and _code(exc) == NO_BUCKET


@contextmanager
def listing(bucket: str) -> Iterator[None]:
    """Turn exceptions about a whole bucket into the project's error.

    Raises:
        Unlisted: the bucket cannot be read.
    """
    try:
        yield
    except (ClientError, BotoCoreError, OSError) as exc:
        raise Unlisted(bucket, exc) from exc


@dataclass(frozen=True)
class Unreadable:
    """A version that cannot be read although its bucket can.

    Attributes:
        reason: why; versions are counted by reason.
    """

    reason: str


class VersionTar:
    """A bucket's versions as a tar; iterate it once.

    Args:
        client: a client of the source.
        bucket: its name.
        earlier: returns the id of the earlier backup that has a version's bytes, and their SHA-256; None if no backup
            has them.
        note: called with every version, in order, when it is complete.
        strict: fail at a version that cannot be read, unless a client has its key (SSE-C).

    Attributes:
        unreadable: reason → number of versions that were left out.
    """

    def __init__(
        self,
        client: Any,
        bucket: str,
        earlier: Callable[[Version], tuple[str, str] | None],
        note: Callable[[Version], None],
        *,
        strict: bool = False,
    ) -> None:
        self._client, self._bucket = client, bucket
        self._earlier, self._note, self._strict = earlier, note, strict
        self.unreadable: dict[str, int] = {}
        self._files = 0
        self._last = ("", -1)  # key and ordinal

    def __iter__(self) -> Iterator[bytes]:
        """The tar's bytes.

        Raises:
            Unlisted: the bucket cannot be read.
            TemporaryError: the server does not answer; with `strict` also: an object could not be read to its end.
        """
        with ThreadPoolExecutor(READERS, thread_name_prefix="versions") as pool:
            fetches: deque[tuple[Version, Future[Any]]] = deque()
            for version in list_versions(self._client, self._bucket):
                fetches.append((version, pool.submit(self._fetch, version)))
                if len(fetches) > READERS:
                    yield from self._write(*fetches.popleft())
            while fetches:
                yield from self._write(*fetches.popleft())
        yield b"\0" * (2 * tarfile.BLOCKSIZE)

    def _fetch(self, version: Version) -> Any:
        """Complete a version's metadata and return its bytes, whole or as a stream.

        Returns no bytes if an earlier backup has them, None if the version was deleted, and `Unreadable` if only this
        version cannot be read.
        """
        if version.marker:
            return b""
        address = {"Bucket": self._bucket, "Key": version.key, "VersionId": version.identity}
        try:
            earlier = self._earlier(version)
            if earlier is not None:
                version.held, version.content = earlier
                answer = self._client.head_object(**address)
            else:
                answer = self._client.get_object(**address)
            version.headers = {name: _sent(answer[name]) for name in HEADERS if answer.get(name)}
            if answer.get("TagCount") or (earlier is not None and "TagCount" not in answer):
                tagging = self._client.get_object_tagging(**address)["TagSet"]
                version.tags = {tag["Key"]: tag["Value"] for tag in tagging}
            if earlier is not None:
                return b""
            # without versioning the object may have been replaced since it was listed, so the answer counts
            version.size = int(answer["ContentLength"])
            version.etag = str(answer["ETag"]).strip('"')
            version.modified = answer["LastModified"].isoformat()
            body = answer["Body"]
            return body.read() if version.size <= WHOLE_BYTES else body
        except ClientError as exc:
            if _code(exc) in GONE:
                return None
            return Unreadable(SSE_C) if _is_clients(exc) else self._unreadable(version, exc)
        except (BotoCoreError, OSError, HTTPError) as exc:
            return self._unreadable(version, exc)

    def _unreadable(self, version: Version, exc: Exception) -> Unreadable:
        """Find out whether only this version cannot be read.

        Raises:
            Unlisted, TemporaryError: the bucket or the server has a problem.
        """
        label = f"{self._bucket}/{version.key}"
        if self._strict or (isinstance(exc, ClientError) and _code(exc) in BUSY):
            raise TemporaryError(f"{label}: {exc}") from exc
        with listing(self._bucket):
            self._client.list_object_versions(Bucket=self._bucket, MaxKeys=1)
        code = _code(exc) if isinstance(exc, ClientError) else type(exc).__name__
        return Unreadable(f"that MinIO cannot return ({code})")

    def _write(self, version: Version, fetched: Future[Any]) -> Iterator[bytes]:
        body = fetched.result()
        if isinstance(body, Unreadable):
            self._leave_out(body)
            return
        if body is None:  # deleted since it was listed
            return
        # numbered again without gaps: a restore does not know about versions that were left out
        key, ordinal = self._last
        version.ordinal = ordinal + 1 if version.key == key else 0
        if not version.marker and not version.held:
            broken = yield from self._member(version, body)
            if broken:
                self._leave_out(broken)
                return
        self._last = (version.key, version.ordinal)
        self._note(version)

    def _leave_out(self, version: Unreadable) -> None:
        self.unreadable[version.reason] = self.unreadable.get(version.reason, 0) + 1

    def _member(self, version: Version, body: Any) -> Generator[bytes, None, Unreadable | None]:
        """A version's entry in the tar. An interrupted one is padded to its size, and gets no line in the list."""
        version.file = f"{self._files:09d}"
        self._files += 1
        info = tarfile.TarInfo(version.file)
        info.size, info.mode = version.size, 0o600
        yield info.tobuf(tarfile.PAX_FORMAT)
        digest, received, broken = hashlib.sha256(), 0, None
        try:
            for piece in [body] if isinstance(body, bytes) else body.iter_chunks(PIECE_BYTES):
                digest.update(piece)
                received += len(piece)
                yield piece
            if received != version.size:
                raise EOFError(f"{received} bytes received instead of {version.size}")
        except (BotoCoreError, HTTPError, EOFError, OSError) as exc:  # the stream's own
            broken = self._unreadable(version, exc)
            yield from _zeros(version.size - received)
        version.content = digest.hexdigest()
        yield b"\0" * (-version.size % tarfile.BLOCKSIZE)
        return broken


def read_versions(client: Any, bucket: str, note: Callable[[Version], None]) -> None:
    """Read every version of a bucket to its last byte, without keeping the bytes.

    Args:
        client: a client of the server.
        bucket: its name.
        note: called with every version, in order, when it is complete.

    Raises:
        TemporaryError: an object could not be read to its end, or the server does not answer.
    """
    for _ in VersionTar(client, bucket, lambda version: None, note, strict=True):
        pass


# ---------------------------------------------------------------------- inside
def _sent(value: Any) -> Any:
    """A header for JSON: a time as text, text as UTF-8 (botocore decodes headers as Latin-1)."""
    if isinstance(value, datetime):
        return str(value)
    try:
        return value.encode("latin-1").decode() if isinstance(value, str) else value
    except UnicodeError:
        return value


def _zeros(size: int) -> Iterator[bytes]:
    for start in range(0, size, PIECE_BYTES):
        yield b"\0" * min(PIECE_BYTES, size - start)


def _code(exc: ClientError) -> str:
    return str(exc.response["Error"].get("Code"))


def _is_clients(exc: ClientError) -> bool:
    code, text = CLIENTS_KEY
    return _code(exc) == code and text in str(exc.response["Error"].get("Message"))


def _entries(client: Any, bucket: str) -> Iterator[dict[str, Any]]:
    """Versions and delete markers as S3 lists them: by key, the newest first."""
    marker: dict[str, str] = {}
    while True:
        with listing(bucket):
            page = client.list_object_versions(Bucket=bucket, **marker)
        entries = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        # boto3 returns the two kinds separately; they are merged by time, with the current version first
        yield from sorted(
            entries, key=lambda e: (e["Key"], not e["IsLatest"], -e["LastModified"].timestamp())
        )
        if not page.get("IsTruncated"):
            return
        following = {
            "KeyMarker": page["NextKeyMarker"],
            "VersionIdMarker": page.get("NextVersionIdMarker", ""),
        }
        if following == marker:
            raise Unlisted(
                bucket, NoProgress("MinIO gives the same page of versions again and again")
            )
        marker = following
