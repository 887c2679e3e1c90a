"""A bucket with versions in memory, as S3 answers: pages, delete markers, versions that come back."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

PAGE = 1000  # entries of a listing at most: ListObjectVersions, MaxKeys


class VersionedClient:
    """As much of boto3's client as `archive.object_store.store` uses.

    Delete without a version puts a marker above what is there; with one it removes that version
    (https://docs.aws.amazon.com/AmazonS3/latest/userguide/DeleteMarker.html).

    Attributes:
        now: the server's clock.
        objects: key → its versions, the newest last: identity, body (None: a marker), date.
        locks: identity of a version → until when it is locked.
    """

    meta = SimpleNamespace(endpoint_url="https://s3.example")

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.objects: dict[str, list[tuple[str, bytes | None, datetime]]] = {}
        self.locks: dict[str, datetime] = {}
        self._made = 0

    def get_bucket_versioning(self, **_: Any) -> Any:
        return {"Status": "Enabled"}

    def list_multipart_uploads(self, **_: Any) -> Any:
        return {}

    def put_object(self, **asked: Any) -> Any:
        self._add(asked["Key"], asked["Body"])

    def delete_object(self, **asked: Any) -> Any:
        key, version = asked["Key"], asked.get("VersionId")
        if not version:
            self._add(key, None)
            return
        if self.locks.get(version, self.now) > self.now:
            raise _error("AccessDenied", 403)
        self.objects[key] = [one for one in self.objects[key] if one[0] != version]

    def get_object(self, **asked: Any) -> Any:
        body = self._version(asked)[1]
        if body is None:
            raise _error("NoSuchKey", 404)
        stream = SimpleNamespace(iter_chunks=lambda size: iter([body]))
        return {"ContentLength": len(body), "ETag": "e", "Body": stream}

    def head_object(self, **asked: Any) -> Any:
        identity, body, _at = self._version(asked)
        if body is None:
            raise _error("404", 404)
        until = self.locks.get(identity)
        return {"ContentLength": len(body), "ETag": "e", "ObjectLockRetainUntilDate": until}

    def put_object_retention(self, **asked: Any) -> Any:
        identity, until = self._version(asked)[0], asked["Retention"]["RetainUntilDate"]
        if self.locks.get(identity, self.now) > until:
            raise _error("AccessDenied", 403)
        self.locks[identity] = until

    def list_objects_v2(self, **asked: Any) -> Any:
        newest = [(key, all_of_it[-1]) for key, all_of_it in self._below(asked["Prefix"])]
        return {
            "Contents": [
                {"Key": key, "Size": len(body), "LastModified": at}
                for key, (_id, body, at) in newest
                if body is not None
            ]
        }

    def list_object_versions(self, **asked: Any) -> Any:
        rows = [
            (key, one, one == all_of_it[-1])
            for key, all_of_it in self._below(asked["Prefix"])
            for one in reversed(all_of_it)
        ]
        places = [(key, one[0]) for key, one, _ in rows]
        after = (asked.get("KeyMarker"), asked.get("VersionIdMarker"))
        first = places.index(after) + 1 if after[0] else 0  # type: ignore[arg-type]
        page = rows[first : first + PAGE]
        answer: dict[str, Any] = {"Versions": [], "DeleteMarkers": []}
        for key, (identity, body, at), newest in page:
            entry = {"Key": key, "VersionId": identity, "LastModified": at, "IsLatest": newest}
            if body is None:
                answer["DeleteMarkers"].append(entry)
            else:
                answer["Versions"].append({**entry, "Size": len(body)})
        if first + PAGE < len(rows):
            answer |= {"IsTruncated": True, "NextKeyMarker": page[-1][0]}
            answer["NextVersionIdMarker"] = page[-1][1][0]
        return answer

    def _below(self, prefix: str) -> list[tuple[str, list[tuple[str, bytes | None, datetime]]]]:
        return [(k, v) for k, v in sorted(self.objects.items()) if v and k.startswith(prefix)]

    def _add(self, key: str, body: bytes | None) -> None:
        self._made += 1
        self.objects.setdefault(key, []).append((f"v{self._made}", body, self.now))

    def _version(self, asked: dict[str, Any]) -> tuple[str, bytes | None, datetime]:
        for one in reversed(self.objects.get(asked["Key"], [])):
            if asked.get("VersionId", one[0]) == one[0]:
                return one
        raise _error("NoSuchKey", 404)


def _error(code: str, status: int) -> ClientError:
    said: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(said, "request")
