"""What alone cannot be read, a version or a bucket, is left out and named; the rest of the set is whole.

A version that only its client can decrypt (SSE-C) is one; MinIO takes such over TLS only.

The client answers as MinIO does: ErrSSEEncryptedObject in cmd/api-errors.go.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, IncompleteReadError
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from archive.backup.writer import SetWriter
from components.base import BackupContent
from components.digest import Digest
from components.minio import backup
from components.minio.fingerprint import BucketMeasure
from components.minio.objects.versions import WHOLE_BYTES, Version, VersionTar
from errors import TemporaryError

SSE_C = (
    "InvalidRequest",
    "The object was stored using a form of Server Side Encryption. "
    "The correct parameters must be provided to retrieve the object.",
)
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


class Broken:
    """A large body that breaks off in the middle."""

    size = WHOLE_BYTES + 700

    def iter_chunks(self, size: int) -> Iterator[bytes]:
        yield b"x" * (self.size // 2)
        raise IncompleteReadError(actual_bytes=self.size // 2, expected_bytes=self.size)


class Bucket:
    """Versions of objects, oldest first: a body, or how they refuse to be read.

    Args:
        gone: how the bucket itself answers.
    """

    def __init__(
        self, gone: ClientError | None = None, **versions: list[bytes | tuple[str, str] | Broken]
    ) -> None:
        self.versions, self.gone = versions, gone

    def list_object_versions(self, **asked: Any) -> dict[str, Any]:
        if self.gone:
            raise self.gone
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
        if isinstance(body, Broken):
            return {"ContentLength": body.size, "ETag": "", "LastModified": BEGUN, "Body": body}
        if isinstance(body, tuple):
            code, words = body
            raise ClientError({"Error": {"Code": code, "Message": words}}, "GetObject")
        return {
            "ContentLength": len(body),
            "ETag": '"e"',
            "LastModified": BEGUN,
            "Body": io.BytesIO(body),
        }


def read(bucket: Bucket, *, strict: bool = False) -> tuple[VersionTar, list[Version], bytes]:
    noted: list[Version] = []
    tar = VersionTar(bucket, "documents", lambda version: None, noted.append, strict=strict)
    return tar, noted, b"".join(tar)


def measured(noted: list[Version]) -> Any:
    found = BucketMeasure("documents")
    for version in noted:
        found.add(version)
    return found.measures()


def test_it_is_left_out_and_counted_and_the_others_are_read() -> None:
    tar, noted, stored = read(Bucket(a=[b"one", SSE_C, b"two"], b=[SSE_C]))
    assert tar.unreadable == {"encrypted with client keys (SSE-C)": 2}
    assert [(v.key, v.size) for v in noted] == [("a", 3), ("a", 3)]
    with tarfile.open(fileobj=io.BytesIO(stored)) as archive:
        bodies = [archive.extractfile(entry) for entry in archive]
    assert [body.read() for body in bodies if body] == [b"one", b"two"]


def test_what_is_restored_without_it_is_no_difference() -> None:
    _, source, _ = read(Bucket(a=[SSE_C, b"one", SSE_C, b"two"]))
    _, restored, _ = read(Bucket(a=[b"one", b"two"]))
    assert measured(source) == measured(restored)


@pytest.mark.parametrize("refusal", [("InvalidRequest", "Bad request"), ("SlowDownRead", "")])
def test_an_object_that_alone_cannot_be_read_is_left_out_and_named(
    refusal: tuple[str, str],
) -> None:
    tar, noted, _ = read(Bucket(a=[b"one", refusal, b"two"]))
    assert tar.unreadable == {f"that MinIO cannot return ({refusal[0]})": 1}
    assert [(version.identity, version.ordinal) for version in noted] == [("0", 0), ("2", 1)]


def test_a_large_object_that_breaks_off_leaves_the_tar_whole() -> None:
    tar, noted, stored = read(Bucket(a=[Broken()], b=[b"one"]))
    assert tar.unreadable == {"that MinIO cannot return (IncompleteReadError)": 1}
    with tarfile.open(fileobj=io.BytesIO(stored)) as archive:
        names = archive.getnames()
        body = archive.extractfile(names[1])
    assert [(version.key, version.file) for version in noted] == [("b", names[1])]
    assert body is not None and len(names) == 2


@pytest.mark.parametrize("refusal", [("SlowDown", ""), ("TooManyRequests", "")])
def test_a_server_that_is_busy_ends_the_backup(refusal: tuple[str, str]) -> None:
    with pytest.raises(TemporaryError):
        read(Bucket(a=[b"one", refusal]))


def test_what_was_restored_is_read_to_its_last_byte_or_not_at_all() -> None:
    for broken in (("InvalidRequest", "Bad request"), Broken()):
        with pytest.raises(TemporaryError):
            read(Bucket(a=[broken]), strict=True)


def refused(status: int, operation: str) -> ClientError:
    codes = {"GetObjectLockConfiguration": "ObjectLockConfigurationNotFoundError"}
    answer: Any = {
        "Error": {"Code": codes.get(operation, "NoSuchBucket")},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(answer, operation)


class Server:
    """As much of MinIO as a backup asks for.

    Args:
        buckets: by name.
        away: whether it answers nothing but the first list of buckets.
    """

    def __init__(self, buckets: dict[str, Bucket], *, away: bool = False) -> None:
        self.buckets, self.away, self.lists = buckets, away, 0

    def list_buckets(self) -> dict[str, Any]:
        self.lists += 1
        if self.away and self.lists > 1:
            raise EndpointConnectionError(endpoint_url="minio")
        return {"Buckets": [{"Name": name} for name in self.buckets]}

    def list_parts(self, **_: Any) -> None:
        raise refused(404, "ListParts")

    def get_bucket_versioning(self, **_: Any) -> dict[str, Any]:
        return {}

    def get_object_lock_configuration(self, **_: Any) -> None:
        raise refused(404, "GetObjectLockConfiguration")

    def list_object_versions(self, **asked: Any) -> dict[str, Any]:
        return self.buckets[asked["Bucket"]].list_object_versions(**asked)

    def get_object(self, **place: str) -> dict[str, Any]:
        return self.buckets[place["Bucket"]].get_object(**place)


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


@pytest.fixture
def back_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Server], BackupContent]:
    """Backs a server up."""

    def admin(access: Any, server: Any, path: str, bucket: str = "") -> httpx.Response:
        if path == "info":
            return httpx.Response(200, json={"servers": [{}]})
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            if bucket:
                archive.writestr(f"{bucket}/quota.json", "{}")
        ill = "sealed" in names and bucket in ("", "sealed")
        broken = path == "export-bucket-metadata" and ill
        asked = httpx.Request("GET", "http://minio/")
        answer = httpx.Response(500 if broken else 200, content=made.getvalue(), request=asked)
        return answer.raise_for_status()

    names: list[str] = []

    def run(server: Server) -> BackupContent:
        names.extend(server.buckets)
        monkeypatch.setattr(backup, "_server", lambda access: None)
        monkeypatch.setattr(backup, "connect", lambda *_, **__: server)
        monkeypatch.setattr(backup, "admin", admin)
        minio = SimpleNamespace(full_every_days=7)
        access: Any = SimpleNamespace(settings=SimpleNamespace(backup=SimpleNamespace(minio=minio)))
        return backup.back_up(access, Written(tmp_path))

    return run


def test_the_set_says_of_which_bucket_how_many_are_missing(
    back_up: Callable[[Server], BackupContent],
) -> None:
    taken = back_up(Server({"documents": Bucket(a=[b"one", SSE_C])}))
    assert taken.missing == ("bucket documents: 1 versions, encrypted with client keys (SSE-C)",)


def test_a_bucket_that_is_deleted_meanwhile_is_none_of_the_set(
    back_up: Callable[[Server], BackupContent],
) -> None:
    gone = Bucket(gone=refused(404, "ListObjectVersions"))
    taken = back_up(Server({"documents": Bucket(a=[b"one"]), "gone": gone}))
    assert list(taken.topology["buckets"]) == ["documents"]
    assert taken.missing == ()


def denied() -> Bucket:
    answer: Any = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    return Bucket(gone=ClientError(answer, "ListObjectVersions"))


def test_a_bucket_that_cannot_be_read_costs_the_set_that_bucket(
    back_up: Callable[[Server], BackupContent],
) -> None:
    taken = back_up(Server({"denied": denied(), "documents": Bucket(a=[b"one"])}))
    assert list(taken.topology["buckets"]) == ["documents"]
    (missing,) = taken.missing
    assert missing.startswith("bucket denied: ") and "AccessDenied" in missing


def test_settings_that_minio_does_not_give_cost_the_set_those_of_one_bucket(
    back_up: Callable[[Server], BackupContent],
) -> None:
    buckets = {name: Bucket(a=[b"one"]) for name in ("documents", "sealed")}
    taken = back_up(Server(buckets))
    (missing,) = taken.missing
    assert missing.startswith("bucket sealed: MinIO cannot export its settings")
    settings = {m.unit: m.count for m in taken.fingerprint if m.item == "settings"}
    assert settings == {"bucket documents": 1, "bucket sealed": 0}


def test_where_no_bucket_can_be_read_there_is_no_set(
    back_up: Callable[[Server], BackupContent],
) -> None:
    with pytest.raises(TemporaryError, match="no bucket of MinIO"):
        back_up(Server({"denied": denied()}))


def test_a_server_that_goes_meanwhile_makes_no_partial_set(
    back_up: Callable[[Server], BackupContent],
) -> None:
    with pytest.raises(TemporaryError, match="cannot list its buckets"):
        back_up(Server({"documents": Bucket(a=[b"one"]), "denied": denied()}, away=True))


def test_the_lines_of_a_set_are_read_back_as_they_were_measured() -> None:
    until = datetime(2030, 1, 1, 0, 0, 0, 962_000, tzinfo=UTC)
    bucket = Bucket(a=[b"one"])
    answer = bucket.get_object

    def locked(**place: str) -> dict[str, Any]:
        lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}
        return {**answer(**place), **lock, "Expires": until}

    bucket.get_object = locked  # type: ignore[method-assign]
    _, (version,), _ = read(bucket)
    again = Version(**json.loads(json.dumps(asdict(version))))
    assert again == version
    assert measured([again]) == measured([version])


def test_a_retention_of_a_default_rule_is_compared_and_restored_in_whole_seconds() -> None:
    def ending(text: str) -> Version:
        lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": text}
        return Version("a", "", 0, marker=False, headers=lock)

    kept = measured([ending("2030-01-01 00:00:49.962000+00:00")])
    assert kept == measured([ending("2030-01-01 00:00:50+00:00")])
    assert kept != measured([ending("2030-01-01 00:00:49+00:00")])
    # earlier sets have such measures
    (plain,) = [
        m for m in measured([ending("2030-01-01 00:00:50+00:00")]) if m.item == "retentions"
    ]
    digest = Digest()
    digest.add_document(("a", 0, "GOVERNANCE", "2030-01-01 00:00:50+00:00"))
    assert plain.digest == digest.text
