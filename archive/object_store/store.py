"""A bucket of any S3 server: small objects as a whole, large ones in parts, errors as temporary or permanent.

It uses only what third-party servers have in common: path-style addresses, single deletes (bulk deletes need a
Content-MD5 that boto3 no longer sends, https://github.com/EnterpriseDB/barman/issues/1146), equal part sizes.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from archive.object_store.endpoint import SEND_SECONDS, connect
from archive.object_store.entries import Entry, PendingUpload, Version
from calls import call
from config.models import ObjectStoreSettings
from errors import PermanentError, TemporaryError

log = logging.getLogger(__name__)

# An interrupted read is continued this many times, from the next byte.
READ_ATTEMPTS = 5
ATTEMPTS = 5  # attempts for a request; a part is in memory, so only the part is sent again
CHUNK_BYTES = 1 << 20
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html: it cannot be shortened, not even by root
COMPLIANCE = "COMPLIANCE"
SMALL_BYTES = 64 << 20  # a manifest of a thousand tables has 1 MiB
PERMANENT = {
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "NoSuchBucket",
    "RequestTimeTooSkewed",
}
# With a policy for one bucket, a bucket that does not exist gives the same error.
DENIED = "(the key's policy must allow it there: storage.object.bucket, deployments/object-store)"


class Missing(PermanentError):
    """The object or the upload does not exist."""


class Changed(PermanentError):
    """The object was replaced while it was read."""


class Refused(PermanentError):
    """The server denies access, which tells nothing about the object."""


class Unsupported(Refused):
    """The server does not support the request."""


class Store:
    """One bucket. Safe to share between threads.

    Args:
        client: boto3 client of the endpoint.
        bucket: its name.
        locked_until: date until which the store must refuse to delete new objects (S3 object lock, compliance mode).
    """

    def __init__(self, client: Any, bucket: str, locked_until: datetime | None = None) -> None:
        self._client = client
        self.bucket = bucket
        self._lock: dict[str, Any] = {}
        if locked_until is not None:
            self._lock = {"ObjectLockMode": COMPLIANCE, "ObjectLockRetainUntilDate": locked_until}

    @classmethod
    def open(
        cls,
        settings: ObjectStoreSettings,
        credentials: Mapping[str, str],
        *,
        read_seconds: float = SEND_SECONDS,
        attempts: int = ATTEMPTS,
    ) -> Store:
        """The bucket of the settings.

        Args:
            settings: where it is.
            credentials: `access-key` and `secret-key`.
            read_seconds: limit for an answer.
            attempts: for each request.
        """
        client = connect(settings, credentials, read_seconds=read_seconds, attempts=attempts)
        return cls(client, settings.bucket)

    def locking(self, until: datetime) -> Store:
        """Return the same bucket; what is written through it cannot be deleted before that date."""
        return Store(self._client, self.bucket, until)

    # ------------------------------------------------------------------ what it is
    @property
    def address(self) -> str:
        """Endpoint and bucket."""
        return f"{self._client.meta.endpoint_url}/{self.bucket}"

    def where(self, key: str) -> str:
        """Address of an object, for messages."""
        return f"{self.address}/{key}"

    @cached_property
    def versioned(self) -> bool:
        """Whether deleting an object keeps it as a version."""
        try:
            return str(self._call("get_bucket_versioning", "").get("Status")) == "Enabled"
        except PermanentError:  # not implemented
            return False

    @cached_property
    def lockable(self) -> bool:
        """Whether the bucket has object lock."""
        try:
            answer = self._call("get_object_lock_configuration", "")
        except PermanentError:  # none was configured, or not implemented
            return False
        enabled = answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled")
        return str(enabled) == "Enabled"

    def skew_seconds(self) -> float:
        """How far the server's clock is ahead of this one; whole seconds, as in HTTP dates."""
        date = self._call("head_bucket", "")["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        if not date:
            return 0.0
        return (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()

    def refuses_wrong_checksum(self, key: str) -> bool:
        """Whether the server rejects an object whose SHA-256 does not match."""
        wrong = base64.b64encode(hashlib.sha256(b"another").digest()).decode()
        try:
            self._call("put_object", key, Key=key, Body=b"this", ChecksumSHA256=wrong)
        except Unsupported:
            return False
        except PermanentError:
            return True
        return False

    # ------------------------------------------------------------------ whole objects
    def put(self, key: str, body: bytes, *, only_new: bool = False) -> None:
        """Write a small object.

        Args:
            key: its name.
            body: its bytes.
            only_new: raise `Changed` if one of that name exists, on servers that support conditions.
        """
        options = {"IfNoneMatch": "*"} if only_new else {}
        if self._lock:  # a locked object needs a checksum of its own, which boto3 no longer sends
            options["ContentMD5"] = base64.b64encode(hashlib.md5(body).digest()).decode()
        self._call("put_object", key, Key=key, Body=body, **options, **self._lock)

    def get(self, key: str, limit: int = SMALL_BYTES, version: str = "") -> bytes:
        """Read a small object into memory; `Missing` if there is none.

        Args:
            key: its name.
            limit: largest size in bytes.
            version: its identity; the current one if left out.

        Raises:
            PermanentError: it is larger than `limit`.
        """
        content = bytearray()
        for piece in self.read(key, version):
            content += piece
            if len(content) > limit:
                raise PermanentError(
                    f"{self.where(key)} is larger than {limit} bytes: it is not read"
                )
        return bytes(content)

    def read(self, key: str, version: str = "") -> Iterator[bytes]:
        """Read an object in chunks; after a lost connection it continues at the same position.

        Args:
            key: its name.
            version: its identity; the current one if left out.

        Raises:
            Missing: the object does not exist.
            Changed: it was replaced while it was read.
            TemporaryError: the server did not answer.
        """
        size, position, attempts = -1, 0, READ_ATTEMPTS
        options = {"VersionId": version} if version else {}
        while size < 0 or position < size:
            try:
                answer = self._call("get_object", key, Key=key, **options)
                if (
                    size < 0
                ):  # the first answer has the size and the ETag that later answers must match
                    size, options["IfMatch"] = int(answer["ContentLength"]), str(answer["ETag"])
                for piece in answer["Body"].iter_chunks(CHUNK_BYTES):
                    position += len(piece)
                    yield piece
            except TemporaryError:
                raise
            except PermanentError:
                raise
            except Exception as exc:  # exceptions of urllib3 and botocore for an interrupted stream
                attempts -= 1
                if attempts == 0:
                    raise TemporaryError(
                        f"reading {self.where(key)} stopped at byte {position}: {exc}"
                    ) from exc
                log.info("reading %s stopped at byte %d: %s", self.where(key), position, exc)
            if position:
                options["Range"] = f"bytes={position}-"

    def describe(self, key: str) -> tuple[int, str]:
        """Size in bytes and ETag of an object; `Missing` if there is none."""
        answer = self._call("head_object", key, Key=key)
        return int(answer["ContentLength"]), str(answer["ETag"])

    def locked_until(self, key: str, version: str = "") -> datetime | None:
        """Return until when the store refuses to delete a version of an object; None if it is not locked.

        Args:
            key: its name.
            version: its identity; the current one if left out.

        Raises:
            Missing: the object does not exist.
        """
        options = {"VersionId": version} if version else {}
        until: datetime | None = self._call("head_object", key, Key=key, **options).get(
            "ObjectLockRetainUntilDate"
        )
        return until

    def lock(self, key: str, until: datetime, version: str = "") -> None:
        """Refuse the deletion of a version of an object until a date; no later call can shorten that.

        Args:
            key: its name.
            until: the date.
            version: its identity; the current one if left out.

        Raises:
            Missing: the object does not exist.
            Refused: the lock is longer already, or the bucket has none.
        """
        options = {"VersionId": version} if version else {}
        retention = {"Mode": COMPLIANCE, "RetainUntilDate": until}
        self._call("put_object_retention", key, Key=key, Retention=retention, **options)

    def list(self, prefix: str, after: str = "") -> Iterator[Entry]:
        """All objects below a prefix, by key.

        Args:
            prefix: of their keys.
            after: only keys behind this one.
        """
        follow = {"ContinuationToken": "NextContinuationToken"}
        start = {"StartAfter": after} if after else {}
        for answer in self._pages("list_objects_v2", prefix, follow, Prefix=prefix, **start):
            for entry in answer.get("Contents", []):
                yield Entry(entry["Key"], int(entry["Size"]), entry["LastModified"])

    def delete(self, key: str) -> None:
        """Delete an object; no error if it does not exist. A versioned bucket keeps its bytes."""
        self._call("delete_object", key, Key=key)

    def purge(self, key: str) -> None:
        """Delete an object with all its versions, which frees its space; no error if it does not exist.

        Raises:
            PermanentError: it is still locked.
        """
        if not self.versioned:
            self.delete(key)
            return
        for version in [version for version in self.versions(key) if version.key == key]:
            self._call("delete_object", key, Key=key, VersionId=version.identity)

    def versions(self, prefix: str) -> Iterator[Version]:
        """All versions of all objects below a prefix, including delete markers, which come last on each page.

        In a bucket without versions each object is its only version.
        """
        if not self.versioned:
            yield from (Version(e.key, "", e.size, e.modified) for e in self.list(prefix))
            return
        follow = {"KeyMarker": "NextKeyMarker", "VersionIdMarker": "NextVersionIdMarker"}
        for answer in self._pages("list_object_versions", prefix, follow, Prefix=prefix):
            for marks, name in ((False, "Versions"), (True, "DeleteMarkers")):
                for entry in answer.get(name, []):
                    yield Version(
                        entry["Key"],
                        str(entry["VersionId"]),
                        int(entry.get("Size", 0)),
                        entry["LastModified"],
                        bool(entry["IsLatest"]),
                        marks,
                    )

    # ------------------------------------------------------------------ objects in parts
    def begin(self, key: str) -> str:
        """Start an upload in parts; returns its identity."""
        return str(self._call("create_multipart_upload", key, Key=key, **self._lock)["UploadId"])

    def put_part(self, key: str, upload: str, number: int, body: bytes | bytearray) -> str:
        """Upload a part, counted from 1; returns its ETag."""
        answer = self._call(
            "upload_part", key, Key=key, UploadId=upload, PartNumber=number, Body=body
        )
        return str(answer["ETag"])

    def complete(self, key: str, upload: str, etags: Sequence[str], size: int) -> None:
        """Join the parts into one object. A lost reply is not a failure: the object exists then.

        Args:
            key: of the object.
            upload: identity.
            etags: of all parts, in order.
            size: of the whole object, bytes.
        """
        parts = [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(etags, 1)]
        try:
            self._call(
                "complete_multipart_upload",
                key,
                Key=key,
                UploadId=upload,
                MultipartUpload={"Parts": parts},
            )
        except (Missing, TemporaryError):
            # the upload is unknown; if it was completed, the object has this size and number of parts
            try:
                stored_size, etag = self.describe(key)
            except Missing:
                stored_size, etag = -1, ""
            if stored_size != size or not etag.strip('"').endswith(f"-{len(etags)}"):
                raise

    def abort(self, key: str, upload: str) -> None:
        """Abort an upload; no error if it does not exist."""
        try:
            self._call("abort_multipart_upload", key, Key=key, UploadId=upload)
        except Missing:
            return

    def pending(self, prefix: str) -> tuple[PendingUpload, ...]:
        """Incomplete uploads below a prefix.

        The whole bucket is listed: MinIO lists uploads only for a prefix that is a complete key.
        """
        uploads: list[PendingUpload] = []
        follow = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
        for answer in self._pages("list_multipart_uploads", prefix, follow):
            uploads += [
                PendingUpload(entry["Key"], entry["UploadId"], entry["Initiated"])
                for entry in answer.get("Uploads", [])
                if entry["Key"].startswith(prefix)
            ]
        return tuple(uploads)

    # ------------------------------------------------------------------ inside
    def _pages(
        self, operation: str, key: str, follow: Mapping[str, str], **arguments: Any
    ) -> Iterator[Any]:
        """All pages of a list.

        Args:
            operation: the client's operation.
            key: key or prefix, for messages.
            follow: argument for the next page → field of the answer with its value.
            arguments: arguments of every page.

        Raises:
            TemporaryError: the pages do not end.
        """
        marker: dict[str, str] = {}
        while True:
            answer = self._call(operation, key, **arguments, **marker)
            yield answer
            if not answer.get("IsTruncated"):
                return
            following = {argument: answer[field] for argument, field in follow.items()}
            if following == marker:
                raise TemporaryError(
                    f"{operation} {self.where(key)}: the store gives the same page again and again"
                )
            marker = following

    def _call(self, operation: str, key: str, **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            with call(f"{operation} {self.where(key)}"):
                return getattr(self._client, operation)(Bucket=self.bucket, **arguments)
        except ClientError as exc:
            raise _translated(exc, f"{operation} {self.where(key)}") from exc
        except (BotoCoreError, OSError) as exc:
            raise TemporaryError(f"{operation} {self.where(key)}: {exc}") from exc


def _translated(exc: Any, request: str) -> PermanentError | TemporaryError:
    code = str(exc.response["Error"].get("Code"))
    status = int(exc.response["ResponseMetadata"].get("HTTPStatusCode", 0))
    message = f"{request}: {code} {exc.response['Error'].get('Message', '')}".strip()
    if code in ("NoSuchKey", "NoSuchUpload", "404"):
        return Missing(message)
    if code in ("PreconditionFailed", "412"):
        return Changed(f"{message}: the object was replaced while it was read")
    if code == "RequestTimeTooSkewed":
        return Refused(f"{message}: the clocks of this machine and of the object store differ")
    if status == 501:
        return Unsupported(message)
    if code == "AccessDenied":
        return Refused(f"{message} {DENIED}")
    # 408 and 429 are temporary; a bucket without object lock answers 404
    if code in PERMANENT or (400 <= status < 500 and status not in (408, 429)):
        return Refused(message)
    return TemporaryError(message)
