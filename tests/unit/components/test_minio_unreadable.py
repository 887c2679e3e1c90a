"""A version that only its client can decrypt (SSE-C) is left out and counted; MinIO takes such over TLS only.

The client answers as MinIO does: ErrSSEEncryptedObject in cmd/api-errors.go.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from archive.writer import SetWriter
from components.minio import backup
from components.minio.fingerprint import BucketMeasure
from components.minio.versions import Version, VersionTar
from errors import TemporaryError

SSE_C = (
    "InvalidRequest",
    "The object was stored using a form of Server Side Encryption. "
    "The correct parameters must be provided to retrieve the object.",
)
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


class Bucket:
    """Versions of objects, oldest first: a body, or how they refuse to be read."""

    def __init__(self, **versions: list[bytes | tuple[str, str]]) -> None:
        self.versions = versions

    def list_object_versions(self, **_: Any) -> dict[str, Any]:
        listed = [
            {
                "Key": key,
                "VersionId": str(number),
                "IsLatest": number == len(bodies) - 1,
                "LastModified": BEGUN + timedelta(hours=number),
                "Size": 3,
                "ETag": f'"{number}"',
            }
            for key, bodies in self.versions.items()
            for number, _ in enumerate(bodies)
        ]
        return {"Versions": listed}

    def get_object(self, **place: str) -> dict[str, Any]:
        body = self.versions[place["Key"]][int(place["VersionId"])]
        if isinstance(body, tuple):
            code, words = body
            raise ClientError({"Error": {"Code": code, "Message": words}}, "GetObject")
        return {
            "ContentLength": len(body),
            "ETag": '"e"',
            "LastModified": BEGUN,
            "Body": io.BytesIO(body),
        }


def read(bucket: Bucket) -> tuple[VersionTar, list[Version], bytes]:
    noted: list[Version] = []
    tar = VersionTar(bucket, "documents", lambda version: None, noted.append)
    return tar, noted, b"".join(tar)


def measured(noted: list[Version]) -> Any:
    found = BucketMeasure("documents")
    for version in noted:
        found.add(version)
    return found.measures()


def test_it_is_left_out_and_counted_and_the_others_are_read() -> None:
    tar, noted, stored = read(Bucket(a=[b"one", SSE_C, b"two"], b=[SSE_C]))
    assert tar.unreadable == 2
    assert [(v.key, v.size) for v in noted] == [("a", 3), ("a", 3)]
    with tarfile.open(fileobj=io.BytesIO(stored)) as archive:
        bodies = [archive.extractfile(entry) for entry in archive]
    assert [body.read() for body in bodies if body] == [b"one", b"two"]


def test_what_is_restored_without_it_is_no_difference() -> None:
    _, source, _ = read(Bucket(a=[SSE_C, b"one", SSE_C, b"two"]))
    _, restored, _ = read(Bucket(a=[b"one", b"two"]))
    assert measured(source) == measured(restored)


@pytest.mark.parametrize("refusal", [("InvalidRequest", "Bad request"), ("SlowDown", "")])
def test_any_other_refusal_ends_the_backup(refusal: tuple[str, str]) -> None:
    with pytest.raises(TemporaryError):
        read(Bucket(a=[b"one", refusal]))


def refused(status: int, operation: str) -> ClientError:
    answer: Any = {"Error": {"Code": "No"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)


class Server(Bucket):
    """As much of MinIO as a backup asks for."""

    def list_buckets(self) -> dict[str, Any]:
        return {"Buckets": [{"Name": "documents"}]}

    def list_parts(self, **_: Any) -> None:
        raise refused(404, "ListParts")

    def get_bucket_versioning(self, **_: Any) -> dict[str, Any]:
        return {}

    def get_object_lock_configuration(self, **_: Any) -> None:
        raise refused(404, "GetObjectLockConfiguration")


class Written(SetWriter):
    """Takes everything, keeps nothing."""

    def __init__(self, spool: Path) -> None:
        store = SimpleNamespace(bucket="b", begin=lambda key: "1", abort=lambda key, upload: None)
        super().__init__(cast(Any, store), "test/", (), Ed25519PrivateKey.generate(), spool)

    def add(
        self, name: str, unit: str, form: str, source: Iterable[bytes], estimate: int = 0
    ) -> Any:
        for _ in source:
            pass

    def add_plain(self, name: str, unit: str, form: str, source: Iterable[bytes]) -> Any:
        self.add(name, unit, form, source)


def test_the_set_says_of_which_bucket_how_many_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()

    def admin(access: Any, server: Any, path: str) -> httpx.Response:
        if path == "info":
            return httpx.Response(200, json={"servers": [{}]})
        return httpx.Response(200, content=empty.getvalue())

    server = Server(a=[b"one", SSE_C])
    monkeypatch.setattr(backup, "_server", lambda access: None)
    monkeypatch.setattr(backup, "connect", lambda *_, **__: server)
    monkeypatch.setattr(backup, "admin", admin)
    minio = SimpleNamespace(full_every_days=7)
    access: Any = SimpleNamespace(settings=SimpleNamespace(backup=SimpleNamespace(minio=minio)))
    taken = backup.back_up(access, Written(tmp_path))
    assert taken.missing == (
        "bucket documents: 1 versions, encrypted with keys of their clients (SSE-C)",
    )
