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
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from errors import TemporaryError

READERS = 8
# up to here an object is fetched ahead, whole; larger ones are passed on as they come
WHOLE_BYTES = 2 << 20
PIECE_BYTES = 1 << 20
GONE = ("NoSuchKey", "NoSuchVersion", "404", "MethodNotAllowed", "405")
# A version that its client encrypted with a key of his own (SSE-C) answers so to everybody else; nothing but the words
# tells it from other bad requests (ErrSSEEncryptedObject in minio/minio, cmd/api-errors.go; AWS has the same).
CLIENTS_KEY = ("InvalidRequest", "stored using a form of Server Side Encryption")
UNREADABLE = object()
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
        held: id of the earlier set that has the bytes; "" if this one does.
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
    """Tells versions that a set has from those that clients wrote behind them since it was restored.

    Args:
        stored: the set's, keys in order.
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


class VersionTar:
    """A bucket's versions as a tar; iterate it once.

    Args:
        client: of the source.
        bucket: its name.
        earlier: id of the set that has a version's bytes, and their SHA-256; None if none has.
        note: gets every version, in order, when everything is known of it.

    Attributes:
        unreadable: versions that were left out since only their clients have the keys (SSE-C).
    """

    def __init__(
        self,
        client: Any,
        bucket: str,
        earlier: Callable[[Version], tuple[str, str] | None],
        note: Callable[[Version], None],
    ) -> None:
        self._client, self._bucket = client, bucket
        self._earlier, self._note = earlier, note
        self.unreadable = 0
        self._files = 0
        self._last = ("", -1)  # key and ordinal

    def __iter__(self) -> Iterator[bytes]:
        """The tar's bytes.

        Raises:
            TemporaryError: an object's bytes broke off, or the server is away.
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
        UNREADABLE if only its client can read it.
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
            if str(exc.response["Error"].get("Code")) in GONE:
                return None
            if _is_clients(exc):
                return UNREADABLE
            raise TemporaryError(f"{self._bucket}/{version.key}: {exc}") from exc
        except (BotoCoreError, OSError) as exc:
            raise TemporaryError(f"{self._bucket}/{version.key}: {exc}") from exc

    def _write(self, version: Version, fetched: Future[Any]) -> Iterator[bytes]:
        body = fetched.result()
        if body is UNREADABLE:
            self.unreadable += 1
            return
        if body is None:  # deleted since it was listed
            return
        # counted anew: a restore knows nothing of what was left out between two versions
        key, ordinal = self._last
        version.ordinal = ordinal + 1 if version.key == key else 0
        self._last = (version.key, version.ordinal)
        if not version.marker and not version.held:
            yield from self._member(version, body)
        self._note(version)

    def _member(self, version: Version, body: Any) -> Iterator[bytes]:
        version.file = f"{self._files:09d}"
        self._files += 1
        info = tarfile.TarInfo(version.file)
        info.size, info.mode = version.size, 0o600
        yield info.tobuf(tarfile.PAX_FORMAT)
        digest, seen = hashlib.sha256(), 0
        for piece in [body] if isinstance(body, bytes) else self._pieces(version, body):
            digest.update(piece)
            seen += len(piece)
            yield piece
        if seen != version.size:
            raise TemporaryError(
                f"{self._bucket}/{version.key}: {seen} bytes came instead of {version.size}"
            )
        version.content = digest.hexdigest()
        yield b"\0" * (-version.size % tarfile.BLOCKSIZE)

    def _pieces(self, version: Version, body: Any) -> Iterator[bytes]:
        try:
            yield from body.iter_chunks(PIECE_BYTES)
        except Exception as exc:  # urllib3's and botocore's own, of a stream that broke
            raise TemporaryError(f"{self._bucket}/{version.key} broke off: {exc}") from exc


def read_versions(client: Any, bucket: str, note: Callable[[Version], None]) -> None:
    """Read every version of a bucket to its last byte, and keep none.

    Args:
        client: of the server.
        bucket: its name.
        note: gets every version, in order, when everything is known of it.

    Raises:
        TemporaryError: an object's bytes broke off, or the server is away.
    """
    for _ in VersionTar(client, bucket, lambda version: None, note):
        pass


# ---------------------------------------------------------------------- inside
def _sent(value: Any) -> Any:
    """A header as its client sent it: in UTF-8, which is read as Latin-1."""
    try:
        return value.encode("latin-1").decode() if isinstance(value, str) else value
    except UnicodeError:
        return value


def _is_clients(exc: ClientError) -> bool:
    code, words = CLIENTS_KEY
    error = exc.response["Error"]
    return str(error.get("Code")) == code and words in str(error.get("Message"))


def _entries(client: Any, bucket: str) -> Iterator[dict[str, Any]]:
    """Versions and delete markers as S3 lists them: by key, the newest first."""
    marker: dict[str, str] = {}
    while True:
        try:
            page = client.list_object_versions(Bucket=bucket, **marker)
        except (ClientError, BotoCoreError, OSError) as exc:
            raise TemporaryError(f"versions of bucket {bucket} cannot be listed: {exc}") from exc
        both = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        # boto3 parts the two kinds; the order of a key's versions is that of their times, the newest marked
        yield from sorted(
            both, key=lambda e: (e["Key"], not e["IsLatest"], -e["LastModified"].timestamp())
        )
        if not page.get("IsTruncated"):
            return
        marker = {
            "KeyMarker": page["NextKeyMarker"],
            "VersionIdMarker": page.get("NextVersionIdMarker", ""),
        }
