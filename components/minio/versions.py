"""Every version of a bucket's objects as one tar, and a line for each with what a tar cannot say.

`mc mirror` and its like copy what is current. Here the versions come oldest first, delete markers among them, each
with metadata, tags, retention and legal hold, so that a replay in this order makes the same history. What an earlier
set has is not read again: a version never changes, but for its tags and its retention, which are asked for every
time.
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
# up to here an object is fetched ahead, whole; larger ones are passed on as they come
WHOLE_BYTES = 2 << 20
PIECE_BYTES = 1 << 20
GONE = ("NoSuchKey", "NoSuchVersion", "404", "MethodNotAllowed", "405")
# This is the answer for a version that a client encrypted with its own key (SSE-C); only the words
# tells it from other bad requests (ErrSSEEncryptedObject in minio/minio, cmd/api-errors.go; AWS has the same).
CLIENTS_KEY = ("InvalidRequest", "stored using a form of Server Side Encryption")
SSE_C = "encrypted with client keys (SSE-C)"
# What says that the server is busy, of whatever object: the others are asked later too.
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
        identity: version id, `null` in a bucket without versions.
        ordinal: 0 is the oldest of its key.
        marker: whether it is a delete marker.
        etag: as S3 gives it.
        size: bytes.
        modified: when it was written.
        headers: content type, metadata, retention and the like, as boto3 names them.
        tags: of the object.
        content: SHA-256 of the bytes, in hexadecimal.
        held: id of the earlier backup that has the bytes; "" if this one does.
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
    """Tells versions that a backup has from those that clients wrote behind them since it was restored.

    Args:
        stored: the backup's, keys in order.
    """

    def __init__(self, stored: Iterable[Version]) -> None:
        self._groups = groupby(stored, key=lambda version: version.key)
        self._key, self._count = "", 0

    def __call__(self, version: Version) -> bool:
        """Whether one is among them; to be asked of versions in their order."""
        while self._key < version.key:
            key, versions = next(self._groups, (AFTER_ALL, iter(())))
            self._key, self._count = key, sum(1 for _ in versions)
        return version.key == self._key and version.ordinal < self._count


class Unlisted(TemporaryError):
    """A bucket cannot be read.

    Attributes:
        gone: whether there is no such bucket any more.
    """

    def __init__(self, bucket: str, exc: Exception) -> None:
        super().__init__(f"bucket {bucket} cannot be read: {exc}")
        self.gone = isinstance(exc, ClientError) and _code(exc) == NO_BUCKET


@contextmanager
def listing(bucket: str) -> Iterator[None]:
    """What a client raises of a bucket as a whole.

    Raises:
        Unlisted: instead of that.
    """
    try:
        yield
    except (ClientError, BotoCoreError, OSError) as exc:
        raise Unlisted(bucket, exc) from exc


@dataclass(frozen=True)
class Unreadable:
    """Why a version cannot be read, though its bucket can.

    Attributes:
        reason: the same for all versions of a kind.
    """

    reason: str


class VersionTar:
    """A bucket's versions as a tar; iterate it once.

    Args:
        client: of the source.
        bucket: its name.
        earlier: id of the backup that has a version's bytes, and their SHA-256; None if none has.
        note: gets every version, in order, when everything is known of it.
        strict: a version that cannot be read ends it, unless only its client has the key (SSE-C).

    Attributes:
        unreadable: reason → how many versions were left out for it.
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
            TemporaryError: the server does not answer; an object's bytes broke off, where it is strict.
        """
        with ThreadPoolExecutor(READERS, thread_name_prefix="versions") as pool:
            ahead: deque[tuple[Version, Future[Any]]] = deque()
            for version in list_versions(self._client, self._bucket):
                ahead.append((version, pool.submit(self._fetch, version)))
                if len(ahead) > READERS:
                    yield from self._write(*ahead.popleft())
            while ahead:
                yield from self._write(*ahead.popleft())
        yield b"\0" * (2 * tarfile.BLOCKSIZE)

    def _fetch(self, version: Version) -> Any:
        """What is known of a version, and its bytes where these are new: whole, or as a stream; None if it is gone,
        Unreadable if it alone cannot be read.
        """
        if version.marker:
            return b""
        place = {"Bucket": self._bucket, "Key": version.key, "VersionId": version.identity}
        try:
            found = self._earlier(version)
            if found is not None:
                version.held, version.content = found
                answer = self._client.head_object(**place)
            else:
                answer = self._client.get_object(**place)
            version.headers = {name: _sent(answer[name]) for name in HEADERS if answer.get(name)}
            if answer.get("TagCount") or (found is not None and "TagCount" not in answer):
                tagging = self._client.get_object_tagging(**place)["TagSet"]
                version.tags = {tag["Key"]: tag["Value"] for tag in tagging}
            if found is not None:
                return b""
            # an object without versions may have been replaced since it was listed: what came is what counts
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
        """Tell a version that cannot be read from a server that is away, busy or without its bucket.

        Raises:
            Unlisted, TemporaryError: it is not this version alone.
        """
        where = f"{self._bucket}/{version.key}"
        if self._strict or (isinstance(exc, ClientError) and _code(exc) in BUSY):
            raise TemporaryError(f"{where}: {exc}") from exc
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
        # counted again: a restore knows nothing of what was left out between two versions
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
        """A version's entry. One that breaks off is filled up, so that the tar goes on; no line speaks of it."""
        version.file = f"{self._files:09d}"
        self._files += 1
        info = tarfile.TarInfo(version.file)
        info.size, info.mode = version.size, 0o600
        yield info.tobuf(tarfile.PAX_FORMAT)
        digest, seen, broken = hashlib.sha256(), 0, None
        try:
            for piece in [body] if isinstance(body, bytes) else body.iter_chunks(PIECE_BYTES):
                digest.update(piece)
                seen += len(piece)
                yield piece
            if seen != version.size:
                raise EOFError(f"{seen} bytes received instead of {version.size}")
        except (BotoCoreError, HTTPError, EOFError, OSError) as exc:  # the stream's own
            broken = self._unreadable(version, exc)
            yield from _zeros(version.size - seen)
        version.content = digest.hexdigest()
        yield b"\0" * (-version.size % tarfile.BLOCKSIZE)
        return broken


def read_versions(client: Any, bucket: str, note: Callable[[Version], None]) -> None:
    """Read every version of a bucket to its last byte, and keep none.

    Args:
        client: of the server.
        bucket: its name.
        note: gets every version, in order, when everything is known of it.

    Raises:
        TemporaryError: an object's bytes broke off, or the server does not answer.
    """
    for _ in VersionTar(client, bucket, lambda version: None, note, strict=True):
        pass


# ---------------------------------------------------------------------- inside
def _sent(value: Any) -> Any:
    """A header as its client sent it: in UTF-8, which is read as Latin-1. A time as text, which JSON has a form for."""
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
    code, words = CLIENTS_KEY
    return _code(exc) == code and words in str(exc.response["Error"].get("Message"))


def _entries(client: Any, bucket: str) -> Iterator[dict[str, Any]]:
    """Versions and delete markers as S3 lists them: by key, the newest first."""
    marker: dict[str, str] = {}
    while True:
        with listing(bucket):
            page = client.list_object_versions(Bucket=bucket, **marker)
        both = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        # boto3 parts the two kinds; the order of a key's versions is that of their times, the newest marked
        yield from sorted(
            both, key=lambda e: (e["Key"], not e["IsLatest"], -e["LastModified"].timestamp())
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
